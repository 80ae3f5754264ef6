"""What a decoding process is asked for, by name: facts go back as JSON, voxels as arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from segmed.imaging.formats.faults import ImageFault
from segmed.imaging.formats.seg_nrrd import is_segmentation
from segmed.imaging.grid import Grid, read_grid, read_label_segments
from segmed.imaging.labels.segments import Segments, StoredSegment
from segmed.imaging.picture import Picture, open_picture
from segmed.imaging.reading import read_volume
from segmed.imaging.volume import Volume

Facts = dict[str, Any]
Answer = tuple[Facts, Sequence[np.ndarray]]


def _check(path: Path) -> Answer:
    read_volume(path)
    return {}, ()


def _volume(path: Path) -> Answer:
    found = read_volume(path)
    facts = {"affine": found.affine.tolist(), "modality": found.modality}
    return facts | {"source": found.source, "note": found.note}, [found.array]


def _picture(path: Path, window: str) -> Answer:
    found = open_picture(path, window)
    facts = {"affine": found.affine.tolist(), "key": found.key, "window": found.window, "note": found.note}
    return facts | {"levels": [float(level) for level in found.levels]}, [found.array]


def _segments(path: Path, grid: Mapping[str, Any], grey: bool) -> Answer:
    if grey:
        _check_grey(path)
    found = read_label_segments(path, told_grid(grid))
    return {"segments": [asdict(one) for one in found.segments], "general": dict(found.general)}, found.layers


TASKS: dict[str, Callable[..., Answer]] = {
    "check": _check,
    "volume": _volume,
    "picture": _picture,
    "segments": _segments,
}


def grid_facts(grid: Grid) -> Facts:
    """A grid as JSON."""
    affine = None if grid.affine is None else grid.affine.tolist()
    return {
        "shape": [int(n) for n in grid.shape],
        "affine": affine,
        "others": [one.tolist() for one in grid.others],
    }


def told_grid(facts: Mapping[str, Any]) -> Grid:
    """The grid that `grid_facts` has written down."""
    i, j, k = facts["shape"]
    affine = None if facts["affine"] is None else np.array(facts["affine"], float)
    return Grid((i, j, k), affine, others=tuple(np.array(one, float) for one in facts["others"]))


def told_volume(facts: Facts, arrays: Sequence[np.ndarray]) -> Volume:
    """What `volume` has read."""
    affine = np.array(facts["affine"], float)
    return Volume(arrays[0], affine, facts["modality"], facts["source"], facts["note"])


def told_picture(facts: Facts, arrays: Sequence[np.ndarray]) -> Picture:
    """What `picture` has read."""
    low, high = facts["levels"]
    affine = np.array(facts["affine"], float)
    return Picture(arrays[0], affine, facts["key"], facts["window"], (low, high), facts["note"])


def told_segments(facts: Facts, arrays: Sequence[np.ndarray]) -> Segments:
    """What `segments` has read."""
    return Segments(tuple(arrays), tuple(StoredSegment(**one) for one in facts["segments"]), facts["general"])


def _check_grey(path: Path) -> None:
    """Raises ImageFault for pictures in colour, whose channels say nothing of labels."""
    if is_segmentation(path):
        return
    if read_grid(path, labels=True).channels in (3, 4):
        volume = read_volume(path, labels=True)
        if volume.is_colour and (volume.array != volume.array[..., :1]).any():
            raise ImageFault(
                "The label map is a picture in colour, and colours are not told apart as labels. Save it in "
                "grey, one value for each label."
            )
