"""The segments of a label map with their names, codes and colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from segmed.dicom.codes import SegmentCodes, find_codes
from segmed.dicom.series import Series
from segmed.imaging.labels.segments import Segments, StoredSegment, colour_of, values_in
from segmed.imaging.labels.writing import name_values

Names = Mapping[int, str] | Sequence[str]

_LONGEST_NAME = 64  # letters of a DICOM name


@dataclass(frozen=True)
class Segment:
    """One label to be written.

    Attributes:
        value: Value in the flat label map.
        name: Name as viewers show it.
        codes: Codes of the structure.
        colour: Red, green, blue, 0 to 255.
        stored: Segment that holds its voxels.
    """

    value: int
    name: str
    codes: SegmentCodes
    colour: tuple[int, int, int]
    stored: StoredSegment


def as_segments(labels: np.ndarray | Segments, names: Names) -> Segments:
    """A label map with names of its values as segments; segments are returned as they are.

    Args:
        labels: Label map (I, J, K) of integers, 0 the background; or segments with names of their own.
        names: Names of the values of a label map, or of 1, 2, … in order.

    Raises:
        ValueError: The values are not integers of at least 0.
    """
    if isinstance(labels, Segments):
        return labels
    if not np.issubdtype(labels.dtype, np.integer) or labels.min(initial=0) < 0:
        raise ValueError(
            f"A label map holds whole numbers from 0 on, not {labels.dtype} from {labels.min()} on."
        )
    return name_values(labels, names)


def segments_of(
    found: Segments, series: Series, codes: Mapping[str, SegmentCodes] | None = None
) -> list[Segment]:
    """The labels that have voxels, in ascending order of their values.

    Args:
        found: Segments on the grid of the series; a value without a name is called `label 7`.
        series: Series that they belong to.
        codes: Codes of the user.

    Raises:
        ValueError: The segments lie on another grid, or the mask is empty.
    """
    shape = found.layers[0].shape
    if shape != series.grid.shape:
        raise ValueError(
            f"The label map has the shape {shape}, but the series {series.grid.shape}. Resample it onto the "
            "series, for instance with `segmed export`, which does so by world coordinates."
        )
    present = {(n, value) for n, layer in enumerate(found.layers) for value in values_in(layer)}
    kept = sorted((s for s in found.segments if (s.layer, s.layer_value) in present), key=lambda s: s.value)
    if not kept:
        raise ValueError("The mask is empty, so there is nothing to write. Segment something first.")
    out = []
    for stored in kept:
        name = _plain(stored.name) or f"label {stored.value}"
        colour = stored.colour or colour_of(stored.value)
        out.append(Segment(stored.value, name, find_codes(name, codes), colour, stored))
    return out


def _plain(name: str) -> str:
    """The name in a form that DICOM can hold: a backslash would split it into two values."""
    return "".join(c for c in name.replace("\\", "/") if c.isprintable()).strip()[:_LONGEST_NAME].strip()
