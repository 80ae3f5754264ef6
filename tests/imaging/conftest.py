"""The voxels that the tests of reading write and read back."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def voxels() -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 1500, (9, 7, 5)).astype(np.int16)
