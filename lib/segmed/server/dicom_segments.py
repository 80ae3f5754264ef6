"""The segments of a label map: which are there, what they are called, coded and coloured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from segmed.server.codes import SegmentCodes, find_codes
from segmed.server.dicom_series import Series

Names = Mapping[int, str] | Sequence[str]

_COLOURS = (
    (221, 130, 101), (157, 108, 162), (249, 180, 111), (216, 101, 79), (0, 151, 206), (128, 174, 128),
    (241, 214, 145), (111, 184, 210), (230, 80, 120), (144, 238, 144), (95, 120, 200), (205, 205, 80),
)  # fmt: skip
_LONGEST_NAME = 64  # letters of a DICOM name


@dataclass(frozen=True)
class Segment:
    """One label to be written.

    Attributes:
        value: in the label map.
        name: as viewers show it.
        codes: of what it shows.
        colour: red, green, blue, 0 to 255.
    """

    value: int
    name: str
    codes: SegmentCodes
    colour: tuple[int, int, int]


def segments_of(
    labels: np.ndarray, names: Names, series: Series, codes: Mapping[str, SegmentCodes] | None = None
) -> list[Segment]:
    """The labels that have voxels, in ascending order of their values.

    Args:
        labels: (I, J, K) whole numbers on the grid of the series, 0 the background.
        names: of the values, or of 1, 2, … in order; a value without one is called `label 7`.
        series: that they belong to.
        codes: of the user.

    Raises:
        ValueError: not whole numbers on this grid, or an empty mask.
    """
    if not np.issubdtype(labels.dtype, np.integer) or labels.min(initial=0) < 0:
        raise ValueError(f"A label map holds whole numbers from 0 on, not {labels.dtype} from {labels.min()} on.")
    if labels.shape != series.grid.shape:
        raise ValueError(
            f"The label map has the shape {labels.shape}, but the series {series.grid.shape}. Resample it onto the "
            "series, for instance with `segmed export`, which does so by world coordinates."
        )
    values = [int(value) for value in np.unique(labels) if value]
    if not values:
        raise ValueError("The mask is empty, so there is nothing to write. Segment something first.")
    given = dict(names) if isinstance(names, Mapping) else dict(enumerate(names, start=1))
    called = [_plain(given.get(value, "")) or f"label {value}" for value in values]
    return [
        Segment(value, name, find_codes(name, codes), _COLOURS[(value - 1) % len(_COLOURS)])
        for value, name in zip(values, called, strict=True)
    ]


def _plain(name: str) -> str:
    """A name that DICOM can hold: a backslash would part it into two values."""
    return "".join(c for c in name.replace("\\", "/") if c.isprintable()).strip()[:_LONGEST_NAME].strip()
