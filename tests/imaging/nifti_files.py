"""Writes voxels as NIfTI files with unequal spacing and an origin, for the tests that read images."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

AFFINE = np.array([[-0.8, 0, 0, 40], [0, -0.9, 0, 50], [0, 0, 2.5, -30], [0, 0, 0, 1.0]])


def save_nifti(array: np.ndarray, path: Path, affine: np.ndarray = AFFINE) -> Path:
    nib.save(nib.Nifti1Image(array, affine), path)
    return path
