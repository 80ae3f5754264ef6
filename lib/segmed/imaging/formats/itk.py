"""The affine of a file as ITK reads it, converted from LPS, which ITK uses, to RAS."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import SimpleITK as sitk

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def itk_affine(image: sitk.Image | sitk.ImageFileReader) -> np.ndarray:
    """(4, 4), voxel to RAS mm, of an image or of a header."""
    dimension = min(image.GetDimension(), 3)
    direction = np.array(image.GetDirection()).reshape(image.GetDimension(), -1)[:dimension, :dimension]
    affine = np.eye(4)
    affine[:dimension, :dimension] = direction * np.array(image.GetSpacing())[:dimension]
    affine[:dimension, 3] = image.GetOrigin()[:dimension]
    return np.asarray(LPS_TO_RAS @ affine)


@contextlib.contextmanager
def quiet_itk() -> Iterator[None]:
    """Suppress the warnings that ITK prints to stderr; faults that matter arrive as exceptions."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)
