"""A SAM2 with memory and the stack that it segments, for the tests of this folder."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sam2_memory import DEPTH, HEIGHT, WIDTH
from segmed.imaging.picture import Picture
from tiny_sam2 import tiny_sam2
from transformers import Sam2VideoModel


@pytest.fixture(scope="module")
def memory() -> Sam2VideoModel:
    return tiny_sam2(1)


@pytest.fixture(scope="module")
def picture() -> Picture:
    """Smooth, changes slowly from slice to slice; not square."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.random((1, 1, 3, 6, 8))).float()
    fine = torch.nn.functional.interpolate(coarse, (DEPTH, HEIGHT, WIDTH), mode="trilinear")[0, 0]
    return Picture((fine.numpy().transpose(2, 1, 0) * 220 + 20).astype(np.uint8), np.eye(4), "stack", "auto")
