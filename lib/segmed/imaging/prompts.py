"""A user's prompt, in voxel indices of the stored array: a box, clicks, scribbles and a previous mask."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Point = tuple[int, int, int]
Range = tuple[int, int]


@dataclass(frozen=True)
class Box:
    """Voxel ranges, both ends inclusive and sorted."""

    i: Range
    j: Range
    k: Range

    @classmethod
    def from_roi(cls, roi: Sequence[float], shape: Sequence[int], across: int = 2) -> Box:
        """A viewer's region [i0, i1, j0, j1, k0, k1], ends in any order, clamped to the image.

        Args:
            roi: The region.
            shape: Size of the image in voxels along (i, j, k).
            across: Axis along which the region may have a single voxel.

        Raises:
            ValueError: The region is not six finite numbers, lies outside the image, or has no extent in its
                plane.
        """
        if len(roi) != 6 or not all(_is_finite(v) for v in roi):
            raise ValueError(
                f"A box needs six finite numbers [i0, i1, j0, j1, k0, k1] in voxels, not {list(roi)!r:.80}."
            )
        ranges = []
        for axis, size in enumerate(shape):
            low, high = sorted(round(v) for v in roi[2 * axis : 2 * axis + 2])
            if high < 0 or low > size - 1:
                raise ValueError(
                    f"The box lies outside the image: {'ijk'[axis]} from {low} to {high}, but the image ends "
                    f"at {size - 1}. Draw the box on the image."
                )
            ranges.append((max(low, 0), min(high, size - 1)))
        plane = [axis for axis in range(3) if axis != across]
        if any(ranges[axis][0] == ranges[axis][1] and shape[axis] > 1 for axis in plane):
            told = ", ".join(f"{'ijk'[axis]} {ranges[axis]}" for axis in plane)
            raise ValueError(
                f"The box is empty: {told}. Draw it around the object, at least two voxels wide."
            )
        return cls(*ranges)

    @property
    def is_flat(self) -> bool:
        return self.k[0] == self.k[1]

    @property
    def middle_slice(self) -> int:
        return (self.k[0] + self.k[1]) // 2


@dataclass(frozen=True)
class Neighbour:
    """The same object on the slice before or after, for methods that carry it from slice to slice.

    Attributes:
        mask: Mask (H, W) of the object on the neighbouring slice, boolean, not empty.
        image: The neighbouring slice, (H, W) or (H, W, 3) uint8.
    """

    mask: np.ndarray
    image: np.ndarray


@dataclass(frozen=True)
class SlicePrompt:
    """One object's prompt on one slice, in pixels of the slice (x = i, y = j).

    Attributes:
        box: Box (x0, y0, x1, y1) in px, or None.
        points: Clicks (N, 2) as (x, y) in px.
        labels: Kind of each click (N,), 1 foreground and 0 background.
        mask: Previous mask (H, W), boolean, or None.
        scribbles: Strokes (H, W), int8: 1 where a stroke lies on the object, -1 where one lies beside it, 0
            elsewhere; or None.
        neighbour: The object on a neighbouring slice, or None.
        loose: Whether the box only bounds the object, which need not reach its sides on this slice.
        quick: Whether the slice is one of many, so that a method may look at it only once.
    """

    box: tuple[float, float, float, float] | None = None
    points: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    mask: np.ndarray | None = None
    scribbles: np.ndarray | None = None
    neighbour: Neighbour | None = None
    loose: bool = False
    quick: bool = False

    def __post_init__(self) -> None:
        if self.points.shape != (len(self.labels), 2):
            raise ValueError(f"Points of shape {self.points.shape} do not match {len(self.labels)} labels.")
        if self.scribbles is not None:
            _check_scribbles(self.scribbles, None if self.mask is None else self.mask.shape)
        named = self.box is not None or self.mask is not None or self.neighbour is not None
        if not named and not (self.labels == 1).any() and not has_strokes(self.scribbles):
            raise ValueError(
                "A prompt needs a box, a foreground click or a mask, or a foreground scribble. Background "
                "clicks and scribbles only exclude."
            )

    @property
    def foreground(self) -> np.ndarray:
        return self.points[self.labels == 1]

    @property
    def background(self) -> np.ndarray:
        return self.points[self.labels == 0]

    @property
    def is_satisfied(self) -> bool:
        """Whether the previous mask agrees with all clicks and strokes, so that nothing needs correction."""
        said = len(self.labels) > 0 or has_strokes(self.scribbles) or has_strokes(self.scribbles, -1)
        if self.mask is None or not said:
            return False
        x, y = self.points.astype(int).T
        clicks = (self.mask[y, x] == (self.labels == 1)).all()
        strokes = self.scribbles
        return bool(clicks) and (
            strokes is None or bool(self.mask[strokes == 1].all() and not self.mask[strokes == -1].any())
        )


@dataclass(frozen=True)
class Prompt:
    """One object's prompt in a volume.

    Attributes:
        box: Voxel ranges of a box, or None.
        foreground: Clicked voxels of the object.
        background: Clicked voxels that do not belong to the object.
        mask: Previous mask (I, J, K), boolean, or None.
        scribbles: Strokes (H, W) by slice, int8 as those of a `SlicePrompt`.
        is_outline: Whether the mask was drawn around the object, as by a lasso. A previous mask that agrees
            with all clicks and strokes has nothing left to correct; an outline is segmented all the same.
    """

    box: Box | None = None
    foreground: tuple[Point, ...] = ()
    background: tuple[Point, ...] = ()
    mask: np.ndarray | None = None
    scribbles: Mapping[int, np.ndarray] = field(default_factory=dict)
    is_outline: bool = False

    def __post_init__(self) -> None:
        for strokes in self.scribbles.values():
            _check_scribbles(strokes, None if self.mask is None else self.mask.shape[1::-1])
        drawn = any(has_strokes(strokes) for strokes in self.scribbles.values())
        if self.box is None and not self.foreground and self.mask is None and not drawn:
            raise ValueError(
                "There is nothing to segment: draw a box or click into the object (a foreground point), then "
                "try again."
            )

    def slices(self) -> list[int]:
        """Slices of the prompt: foreground, background on the mask; else those of the mask.

        Clicks and strokes count alike. A box counts with its middle where neither a foreground click nor a
        foreground stroke lies in it."""
        marked = {k for _, _, k in self.foreground} | {k for k, s in self.scribbles.items() if has_strokes(s)}
        if self.mask is not None:
            beside = {k for _, _, k in self.background} | {
                k for k, s in self.scribbles.items() if has_strokes(s, -1)
            }
            marked |= {k for k in beside if self.mask[:, :, k].any()}
        if self.box and not any(self.box.k[0] <= k <= self.box.k[1] for k in marked):
            marked.add(self.box.middle_slice)
        if not marked and self.mask is not None:
            marked = {int(k) for k in np.flatnonzero(self.mask.any(axis=(0, 1)))}
        return sorted(marked)

    def on_slice(self, k: int) -> SlicePrompt | None:
        """The part of the prompt on slice k; None if that part does not show the object."""
        box = None
        if self.box and self.box.k[0] <= k <= self.box.k[1]:
            box = (float(self.box.i[0]), float(self.box.j[0]), float(self.box.i[1]), float(self.box.j[1]))
        mask = self.mask[:, :, k].T if self.mask is not None and self.mask[:, :, k].any() else None
        near = [(p, 1) for p in self.foreground if p[2] == k] + [(p, 0) for p in self.background if p[2] == k]
        scribbles = self.scribbles.get(k)
        if (
            box is None
            and mask is None
            and not any(label for _, label in near)
            and not has_strokes(scribbles)
        ):
            return None
        return SlicePrompt(
            box,
            np.array([p[:2] for p, _ in near], np.float32).reshape(-1, 2),
            np.array([label for _, label in near], np.int64),
            mask,
            scribbles,
        )


def parse_prompt(
    shape: Sequence[int],
    roi: Sequence[float] | None = None,
    foreground: Sequence[Sequence[float]] = (),
    background: Sequence[Sequence[float]] = (),
    mask: np.ndarray | None = None,
    scribbles: Mapping[int, np.ndarray] | None = None,
    across: int = 2,
) -> tuple[Prompt, list[str]]:
    """Convert a viewer's numbers to a `Prompt`; clicks outside the image are left out and reported.

    Args:
        shape: Size of the image in voxels along (i, j, k).
        roi: Region [i0, i1, j0, j1, k0, k1], ends in any order, or empty.
        foreground: Foreground clicks, [i, j, k] each; [i, j] is allowed on a single-slice image.
        background: Background clicks in the same form.
        mask: Previous mask (I, J, K).
        scribbles: Strokes (H, W) by slice, int8 as those of a `SlicePrompt`.
        across: Axis along which the region may have a single voxel.

    Returns:
        The prompt, and messages for the user about what was left out.

    Raises:
        ValueError: A box or click is not made of numbers or has the wrong length, or nothing is left to
            segment.
    """
    warnings: list[str] = []
    if mask is not None and mask.shape != tuple(shape):
        raise ValueError(f"The mask of shape {mask.shape} does not lie on the image of shape {tuple(shape)}.")
    for k, strokes in (scribbles or {}).items():
        if not 0 <= k < shape[2] or strokes.shape != (shape[1], shape[0]):
            raise ValueError(
                f"Scribbles of shape {strokes.shape} on slice {k} do not lie on the image of shape "
                f"{tuple(shape)}."
            )
    inside = [_points_inside(points, shape, warnings) for points in (foreground, background)]
    box = Box.from_roi(roi, shape, across) if roi is not None and len(roi) else None
    if warnings and box is None and not inside[0] and mask is None and not scribbles:
        raise ValueError(f"{' '.join(warnings)} Click on the image.")
    return Prompt(box, inside[0], inside[1], mask, scribbles or {}), warnings


def has_strokes(scribbles: np.ndarray | None, kind: int = 1) -> bool:
    """Whether strokes of a kind were drawn: 1 on the object, -1 beside it."""
    return scribbles is not None and bool((scribbles == kind).any())


def _check_scribbles(scribbles: np.ndarray, shape: Sequence[int] | None) -> None:
    """Raises ValueError unless scribbles are (H, W) int8 of -1, 0 and 1, of the size of the mask."""
    if scribbles.ndim != 2 or scribbles.dtype != np.int8:
        raise ValueError(f"Scribbles are (H, W) int8, not {scribbles.ndim}-D {scribbles.dtype}.")
    if scribbles.size and (scribbles.min() < -1 or scribbles.max() > 1):
        raise ValueError(
            f"Scribbles hold values from {scribbles.min()} to {scribbles.max()}. Use 1 on the object, -1 "
            "beside it and 0 where nothing was drawn."
        )
    if shape is not None and scribbles.shape != tuple(shape):
        raise ValueError(
            f"Scribbles of shape {scribbles.shape} do not lie on the mask of shape {tuple(shape)}."
        )


def _points_inside(
    points: Sequence[Sequence[float]], shape: Sequence[int], warnings: list[str]
) -> tuple[Point, ...]:
    kept: list[Point] = []
    for point in points:
        given = [*point, 0] if len(point) == 2 and shape[2] == 1 else list(point)
        if len(given) != 3 or not all(_is_finite(v) for v in given):
            raise ValueError(f"A click needs three finite voxel indices [i, j, k], not {point!r:.80}.")
        i, j, k = (round(v) for v in given)
        if all(0 <= v < size for v, size in zip((i, j, k), shape, strict=True)):
            kept.append((i, j, k))
        else:
            warnings.append(
                f"The click at ({i}, {j}, {k}) lies outside the image of {shape[0]}×{shape[1]}×{shape[2]} "
                "voxels and was ignored."
            )
    return tuple(dict.fromkeys(kept))


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and math.isfinite(value)
