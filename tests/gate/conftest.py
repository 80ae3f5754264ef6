"""A server with small images, which the campaigns of this folder attack."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from running import Server, Start, start, start_shared

__all__ = ["SHAPE", "attacked", "start", "start_shared"]
SHAPE = (40, 36, 5)


@pytest.fixture(scope="session")
def attacked(start_shared: Start, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """Models classical and segmed on the image `ct`, of the shape (40, 36, 5), and a photograph."""
    studies = tmp_path_factory.mktemp("attacked")
    image = np.random.default_rng(0).normal(100, 10, SHAPE).astype(np.int16)
    image[10:25, 8:20] += 300
    nib.save(nib.Nifti1Image(image, np.eye(4)), studies / "ct.nii.gz")
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (48, 40), np.uint8)).save(studies / "photo.png")
    return start_shared(studies, "--conf", "models", "classical,segmed", "--conf", "scoring", "off")
