"""DICOM series with label maps that belong to them, for the tests of what is written in DICOM."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
from scipy import ndimage
from segmed.dicom.series import Series, open_series
from segmed.imaging.reading import read_volume

WriteSeries = Callable[..., list[Path]]
SHAPE, SPACING = (30, 26, 12), (0.8, 1.1, 2.5)
NAMES = {1: "liver", 3: "Niere rechts (größer)", 4: "lesion"}
_TURN = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]])
ORIENTATIONS = {
    "axial": np.diag([-1.0, -1.0, 1.0]),
    "axial from the top": np.diag([-1.0, -1.0, -1.0]),
    "sagittal": np.array([[0, 0, 1.0], [-1, 0, 0], [0, -1, 0]]),
    "coronal": np.array([[-1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "oblique": _TURN,
    "tilted gantry": np.array([[-1, 0, 0], [0, -1, 0.25], [0, 0, 1.0]]),
}


def phantom_affine(orientation: str) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = ORIENTATIONS[orientation] * SPACING
    affine[:3, 3] = [31.25, -47.5, 12.75]
    return affine


def _labels() -> np.ndarray:
    """Three lopsided labels, one of them with a hole and with parts, on some of the slices."""
    field = ndimage.gaussian_filter(np.random.default_rng(2).standard_normal(SHAPE), (3, 3, 1.5))
    labels = np.zeros(SHAPE, np.uint8)
    labels[field > 0.04] = 1
    labels[field < -0.06] = 3
    labels[4:14, 5:20, 2:5] = 4
    labels[7:10, 9:15, 2:4] = 0
    labels[8, 11:13, 3] = 4
    labels[:, :, [0, 9, 11]] = 0
    return labels


def make_series(folder: Path, write_series: WriteSeries, orientation: str = "axial") -> Path:
    stored = np.random.default_rng(1).integers(0, 900, SHAPE).astype(np.int16)
    names = [f"{(7 * k) % SHAPE[2]:02d}.dcm" for k in range(SHAPE[2])]  # not in the order of the slices
    write_series(folder, stored, phantom_affine(orientation), names)
    return folder


def seen(folder: Path) -> tuple[Series, np.ndarray]:
    """The series, and a label map that follows what stands in its pixels, so it has to keep to the order."""
    stored = np.random.default_rng(1).integers(0, 900, SHAPE).astype(np.int16)
    image = read_volume(folder).array
    order = [
        next(s for s in range(SHAPE[2]) if np.array_equal(stored[:, :, s], image[:, :, k])) for k in range(12)
    ]
    return open_series(folder), np.ascontiguousarray(_labels()[:, :, order])


def edited(folder: Path, **elements: object) -> Path:
    for path in folder.iterdir():
        data = pydicom.dcmread(path)
        for keyword, value in elements.items():
            if value is None:
                del data[keyword]
            else:
                setattr(data, keyword, value)
        data.save_as(path)
    return folder
