"""Where an object ends, seen in the planes across its slices.

A slice alone does not tell whether the next one still shows the object: where the object ends at something
similar, a mask is passed on and on. The two planes across it show that end as an edge. On each of them, the
chord of the object on the known slice is marked by clicks; the predicted mask tells how the chord goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from segmed.imaging.labels.masks import slice_box
from segmed.imaging.picture import Picture
from segmed.imaging.planes import PlaneView
from segmed.imaging.prompts import Point, SlicePrompt

_COARSEST = 4.0  # ratio of the edges of voxels up to which slices across show ends well enough
_CLICKS = (0.15, 0.5, 0.85)  # places of clicks on a chord, as shares of its length
_TRUST = 0.5  # share of the changes of a chord that count as changes of the object
_BESIDE = 8  # background clicks lie an eighth of a chord beside its ends, at least 2 px

PredictOn = Callable[[Picture, int, SlicePrompt], np.ndarray]
Chords = Mapping[int, tuple[int, int]]


@dataclass(frozen=True)
class Course:
    """How an object goes on from one slice.

    Attributes:
        start: Index of that slice.
        box: Box (x0, y0, x1, y1) of the object on it in px.
        chords: For x (0) and y (1), as far as known, the first and last pixel of the object along a line
            through its middle, by slice.
    """

    start: int
    box: tuple[float, float, float, float]
    chords: Mapping[int, Chords]

    def end(self, step: int) -> int:
        """The last slice of the object in a direction (1 or -1); of two chords, the one that goes farther."""
        return max((max(c) if step > 0 else min(c) for c in self.chords.values()), key=lambda k: k * step)

    def box_on(self, k: int) -> tuple[float, float, float, float]:
        """The box of the object on slice k: its sides move as the chords' ends do, by half of the way.

        A narrower chord may also mean that the object bends out of the plane.
        """
        sides = list(self.box)
        for axis, chords in self.chords.items():
            near = min(max(k, min(chords)), max(chords))
            for n in (0, 1):
                sides[axis + 2 * n] += _TRUST * (chords[near][n] - chords[self.start][n])
            low, high = sides[axis], sides[axis + 2]
            if low > high:
                sides[axis] = sides[axis + 2] = (low + high) / 2
        return max(sides[0], 0.0), max(sides[1], 0.0), max(sides[2], 0.0), max(sides[3], 0.0)


@dataclass(frozen=True)
class Chord:
    """A line through the middle of an object on a slice, along x or y, and clicks that mark it.

    Attributes:
        across: Axis of the volume across the plane in which the line lies together with the k axis.
        at: Index of that plane.
        ends: First and last voxel of the object on the line.
        foreground: Clicked voxels on the object.
        background: Clicked voxels beside it.
    """

    across: int
    at: int
    ends: tuple[int, int]
    foreground: tuple[Point, ...]
    background: tuple[Point, ...]

    @classmethod
    def through(cls, mask: np.ndarray, k: int, across: int) -> Chord:
        """The chord through the deepest pixel of a mask (H, W) of slice k, in the plane across an axis."""
        depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
        y, x = (int(v) for v in np.unravel_index(int(depth.argmax()), mask.shape))
        at, middle, line = (y, x, mask[y]) if across == 1 else (x, y, mask[:, x])
        low, high = _run(line, middle)
        length = high - low + 1
        beside = max(2, length // _BESIDE)

        def voxel(place: int) -> Point:
            return (place, at, k) if across == 1 else (at, place, k)

        on = tuple(voxel(min(high, int(low + length * share))) for share in _CLICKS)
        off = tuple(voxel(v) for v in (low - beside, high + beside) if 0 <= v < len(line))
        return cls(across, at, (low, high), on, off)


class CrossPlanes:
    """The planes across the slices of a volume.

    Args:
        picture: The volume.
        views: The views across its first two axes, see `views_across`.
        predict: Function that returns the mask (H, W) of slice n of a picture for a prompt.
    """

    def __init__(self, picture: Picture, views: Sequence[PlaneView], predict: PredictOn) -> None:
        self._predict = predict
        self._views = [(view, view.picture(picture)) for view in views]

    def course(self, k: int, mask: np.ndarray) -> Course | None:
        """How the object with a mask (H, W) on slice k goes on, or None if the planes cannot show it."""
        chords = {}
        for view, seen in self._views:
            chord = Chord.through(mask, k, view.axis)
            clicks = [*chord.foreground, *chord.background]
            labels = [1] * len(chord.foreground) + [0] * len(chord.background)
            points = np.array([view.point(p)[:2] for p in clicks], np.float32)
            prompt = SlicePrompt(points=points, labels=np.array(labels, np.int64), quick=True)
            plane = view.reduced(self._predict(seen, chord.at, prompt))
            chords[1 - view.axis] = _followed(plane, k, chord.ends)
        return Course(k, slice_box(mask), chords) if chords else None


def views_across(picture: Picture) -> tuple[PlaneView, ...]:
    """The views across the first two axes of a volume; none where its slices are too thick for them."""
    if picture.array.shape[:3] != picture.shape:
        return ()  # a view whose slices are resampled already
    views = (PlaneView.of(picture.shape, picture.affine, axis) for axis in (1, 0))
    return tuple(view for view in views if max(view.stretch) <= _COARSEST)


def _followed(plane: np.ndarray, start: int, ends: tuple[int, int]) -> Chords:
    """Follow a chord from row `start` of a mask (K, N) to both sides until the mask ends."""
    chords = {start: ends}
    for step in (1, -1):
        low, high = ends
        k = start + step
        while 0 <= k < len(plane):
            near = max(0, low - 1)
            touched = near + np.flatnonzero(plane[k, near : high + 2])
            if not len(touched):
                break
            low, high = chords[k] = _run(plane[k], int(touched[len(touched) // 2]))
            k += step
    return chords


def _run(line: np.ndarray, at: int) -> tuple[int, int]:
    """First and last index of the uninterrupted run of true values around index `at`."""
    gaps = np.flatnonzero(~line.astype(bool))
    low, high = gaps[gaps < at], gaps[gaps > at]
    return int(low[-1]) + 1 if len(low) else 0, int(high[0]) - 1 if len(high) else len(line) - 1
