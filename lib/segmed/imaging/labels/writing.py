"""Writes label maps with the names and colours of their values, in the way that each format can hold them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from segmed.imaging.durable import appear_whole
from segmed.imaging.formats.seg_nrrd import SEGMENTATION, write_segments
from segmed.imaging.labels.masks import mask_extension, write_mask
from segmed.imaging.labels.segments import Segments, StoredSegment, colour_of, values_in
from segmed.imaging.labels.sidecar import write_sidecar


def write_labels(
    found: Segments,
    affine: np.ndarray,
    path: str | os.PathLike[str],
    like: str | os.PathLike[str] | None = None,
) -> None:
    """Write a label map together with the meaning of its values.

    A `.seg.nrrd` file holds names, colours and layers itself. Beside NIfTI, a table holds names and colours
    (`read_sidecar`), and where segments overlap, the smaller one counts.

    Args:
        found: Segments on the grid of the image.
        affine: (4, 4), voxel to RAS mm, of the image.
        path: Path that ends in `.seg.nrrd` or one of `MASK_EXTENSIONS`.
        like: File of the image, see `write_mask`.

    Raises:
        ValueError: The extension is unknown, or the format cannot hold the label map.
        OSError: The folder cannot be written.
    """
    coloured = tuple(s.coloured(colour_of(s.value)) for s in found.segments)
    if str(path).lower().endswith(SEGMENTATION):
        with appear_whole(Path(path), SEGMENTATION, sync=False) as name:
            write_segments(replace(found, segments=tuple(map(_called, coloured))), affine, name)
        return
    flat = found.flat()
    if flat.dtype not in (np.uint8, np.uint16):
        flat = flat.astype(np.uint8 if flat.max(initial=0) < 256 else np.uint16)
    write_mask(flat, affine, path, like=like)
    if mask_extension(str(path)).startswith(".nii"):
        write_sidecar(coloured, path, sync=False)  # as the label map itself


def name_values(labels: np.ndarray, names: Mapping[int, str] | Sequence[str] = ()) -> Segments:
    """A label map (I, J, K) of whole numbers with names of its values, or of 1, 2, … in order."""
    given = dict(names) if isinstance(names, Mapping) else dict(enumerate(names, start=1))
    return Segments((labels,), tuple(StoredSegment(given.get(v, ""), v, 0, v) for v in values_in(labels)))


def _called(segment: StoredSegment) -> StoredSegment:
    return segment if segment.name else replace(segment, name=f"label {segment.value}")
