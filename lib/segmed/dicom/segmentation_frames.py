"""Where the frames of a DICOM SEG lie, and what else their functional groups tell."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset


def group_of(data: Dataset, frame: int, name: str) -> Dataset:
    """A functional group of a frame, its own or the one that all share.

    Raises:
        ValueError: it is missing.
    """
    own, shared = (data.get(f"{which}FunctionalGroupsSequence") or [] for which in ("PerFrame", "Shared"))
    for item in [*own[frame : frame + 1], *shared[:1]]:
        if item.get(name):
            return item[name].value[0]
    raise ValueError(
        f"The segmentation does not say the {name} of its frames. Export it again from its source."
    )


def frame_affine(data: Dataset, frame: int) -> np.ndarray:
    """(4, 4), column, row and normal of a frame to LPS mm; the third is one mm long."""
    orientation = _numbers(data, frame, "PlaneOrientationSequence", "ImageOrientationPatient", 6)
    between_rows, between_columns = _numbers(data, frame, "PixelMeasuresSequence", "PixelSpacing", 2)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = orientation[:3] * between_columns, orientation[3:] * between_rows
    affine[:3, 2] = np.cross(orientation[:3], orientation[3:])
    affine[:3, 3] = _numbers(data, frame, "PlanePositionSequence", "ImagePositionPatient", 3)
    return affine


def _numbers(data: Dataset, frame: int, group: str, name: str, count: int) -> np.ndarray:
    """Numbers (count,) in a functional group of a frame.

    Raises:
        ValueError: They are missing, empty or not finite.
    """
    given = group_of(data, frame, group).get(name)
    try:
        numbers = np.array([float(v) for v in given])
    except (TypeError, ValueError):
        numbers = np.empty(0)
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        raise ValueError(
            f"The {name} of frame {frame + 1} of the segmentation is not {count} numbers, so nobody knows "
            "where it lies. Export it again from its source."
        )
    return numbers
