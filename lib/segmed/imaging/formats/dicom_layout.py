"""Sorts the frames of a series by place, or explains why they do not form a volume."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segmed.imaging.formats.dicom_faults import check_direction
from segmed.imaging.formats.dicom_frames import TELLING, DicomFrame
from segmed.imaging.formats.faults import ImageFault

_SAME_PLACE = 1e-2  # mm
_SAME_SPACING = 1e-3


@dataclass(frozen=True)
class Layout:
    """How frames form a volume.

    Attributes:
        frames: Frames in the order of the slices.
        origin: (3,) position of the first voxel in LPS mm; None where the headers do not state it.
        axes: (3, 2) steps along i and j in LPS mm; None where the headers do not state them.
        step: (3,) step from slice to slice in LPS mm; None where the headers do not state it.
    """

    frames: tuple[DicomFrame, ...]
    origin: np.ndarray | None = None
    axes: np.ndarray | None = None
    step: np.ndarray | None = None


def arrange(frames: Sequence[DicomFrame], name: str) -> Layout:
    """Sort the frames of a series by their places.

    Args:
        frames: Frames in stored order, file by file.
        name: Name of the series, for messages.

    Raises:
        ImageFault: The frames are not evenly spaced slices of one direction, with one slice at each place.
    """
    stacks = {frame.telling.get("StackID", "") for frame in frames} - {""}
    if len(stacks) > 1:
        raise ImageFault(
            f"{name} holds {len(stacks)} stacks of slices, but one image is segmented at a time. Part it "
            "into series of one stack each."
        )
    placed = [frame for frame in frames if frame.position and frame.orientation]
    if placed and len(placed) < len(frames):
        raise ImageFault(
            f"{len(frames) - len(placed)} of the {len(frames)} slices of {name} do not say where they lie in "
            "the patient, so they do not form a volume. Fetch the whole series again, or export it from its "
            "source."
        )
    if not placed:
        return Layout(tuple(frames))
    check_direction(["\\".join(map(str, frame.orientation or ())) for frame in frames], name)
    _check_spacing(frames, name)
    across, down = np.array(frames[0].orientation).reshape(2, 3)
    normal = np.cross(across, down)
    if np.linalg.norm(normal) < 0.5:
        raise ImageFault(
            f"The directions of the slices of {name} are invalid. Export the series again from its source."
        )
    given = np.array([frame.position for frame in frames])
    order = np.argsort(given @ normal, kind="stable")
    given, ordered = given[order], tuple(frames[n] for n in order)
    check_places(ordered, given, name)
    spacing = frames[0].spacing
    axes = None if spacing is None else np.stack([across * spacing[0], down * spacing[1]], axis=1)
    if len(ordered) == 1:
        thick = ordered[0].thickness
        return Layout(ordered, given[0], axes, normal * thick if thick > 0 else None)
    step = (given[-1] - given[0]) / (len(given) - 1)
    miss = float(np.linalg.norm(given - (given[0] + np.arange(len(given))[:, None] * step), axis=1).max())
    if miss > max(0.1, 0.1 * float(np.linalg.norm(step))):
        raise ImageFault(
            f"The slices of {name} do not lie at even distances (up to {miss:.1f} mm off): slices are "
            "missing, doubled or damaged, and masks would be misplaced. Fetch the whole series again, or "
            "resample it, for instance in 3D Slicer."
        )
    return Layout(ordered, given[0], axes, step)


def check_places(frames: Sequence[DicomFrame], given: np.ndarray, name: str) -> None:
    """Refuse several images at one place.

    Args:
        frames: Frames sorted by place.
        given: (N, 3) positions of the frames in LPS mm.
        name: Name of the series, for messages.

    Raises:
        ImageFault: Several images lie at one place; the message names the attribute that distinguishes them.
    """
    new = np.r_[True, np.linalg.norm(np.diff(given, axis=0), axis=1) > _SAME_PLACE]
    places = int(new.sum())
    if places == len(frames):
        return
    counts = Counter(np.cumsum(new).tolist())
    if len(set(counts.values())) > 1:
        doubled = sum(count > 1 for count in counts.values())
        raise ImageFault(
            f"{doubled} of the {places} places of {name} hold several slices: slices are missing, doubled or "
            "damaged, and it is unclear which of them count. Fetch the series again, or part it into series "
            "of one slice at each place."
        )
    each = len(frames) // places
    what = _distinction(frames, places, each)
    where = "one place" if places == 1 else f"each of its {places} places"
    raise ImageFault(
        f"{name} holds {each} images at {where}: {what}. One 3-D image is segmented at a time: part it into "
        "series of one image at each place, for instance in 3D Slicer."
    )


def _distinction(frames: Sequence[DicomFrame], places: int, each: int) -> str:
    """What the images at one place are, by the first attribute of which each has another value."""
    first = frames[:each]
    for name, words in TELLING.items():
        values = {frame.telling.get(name) for frame in first}
        if len(values) == each and None not in values:
            return f"{each} {words} ({name})"
    several = [
        words for name, words in TELLING.items() if len({frame.telling.get(name) for frame in first}) > 1
    ]
    return f"several {several[0]}" if several else "doubled slices"


def _check_spacing(frames: Sequence[DicomFrame], name: str) -> None:
    spacings = np.array([frame.spacing for frame in frames if frame.spacing])
    if len(spacings) and np.abs(spacings / spacings[0] - 1).max() > _SAME_SPACING:
        raise ImageFault(
            f"The slices of {name} differ in their pixel spacing, so they do not form a volume. Part them "
            "into series of their own, or resample them, for instance in 3D Slicer."
        )
