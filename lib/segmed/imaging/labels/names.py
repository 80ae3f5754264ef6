"""The structure names of a label map, read from its own header or from the table beside it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

from segmed.imaging.formats.seg_nrrd import is_segmentation
from segmed.imaging.grid import read_grid, read_label_segments
from segmed.imaging.labels.sidecar import read_sidecar
from segmed.imaging.reading import fingerprint


def stored_names(file: Path) -> Mapping[int, str]:
    """Structure names by value; empty if the label map has none.

    Raises:
        ValueError: The segmentation cannot be read.
    """
    if not file.is_file():
        return {}
    if is_segmentation(file):
        return _names_in(str(file), fingerprint(file))
    return {s.value: s.name for s in read_sidecar(file)}


@functools.lru_cache(maxsize=256)
def _names_in(file: str, key: str) -> Mapping[int, str]:
    """Of a segmentation; `key` changes when the file does."""
    return read_label_segments(file, read_grid(file, labels=True)).names
