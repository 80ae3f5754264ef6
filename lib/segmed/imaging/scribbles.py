"""Conversion of hand-drawn strokes and lassos to prompts: scribbles, clicks, boxes and masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import ndimage
from skimage.draw import line, polygon
from skimage.morphology import skeletonize

from segmed.imaging.labels.masks import bounding_box
from segmed.imaging.prompts import Box, Point, Prompt, SlicePrompt

CLICKS = 6  # of the strokes of one kind on one slice
_WIDEST = 200.0  # px


@dataclass(frozen=True)
class Scribbles:
    """Pixels that a user painted, by slice.

    Attributes:
        foreground: Pixels of the object, (H, W) boolean by slice.
        background: Pixels that do not belong to the object, in the same form; where both are set, the
            foreground counts.
    """

    foreground: Mapping[int, np.ndarray] = field(default_factory=dict)
    background: Mapping[int, np.ndarray] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.foreground or self.background)

    @classmethod
    def from_labels(cls, labels: np.ndarray, foreground: int | None, background: int | None) -> Scribbles:
        """The pixels of two values of a label map (I, J, K); None for a value that it does not have."""

        def of(value: int | None) -> dict[int, np.ndarray]:
            if value is None:
                return {}
            painted = labels == value
            return {int(k): painted[:, :, k].T for k in np.flatnonzero(painted.any(axis=(0, 1)))}

        return cls(of(foreground), of(background))

    def with_stroke(self, k: int, pixels: np.ndarray, foreground: bool) -> Scribbles:
        """These scribbles with the pixels (H, W) of another stroke, which counts where strokes cross."""
        kinds = {True: dict(self.foreground), False: dict(self.background)}
        kinds[foreground][k] = kinds[foreground].get(k, False) | pixels
        other = kinds[not foreground].pop(k, None)
        if other is not None and (other & ~pixels).any():
            kinds[not foreground][k] = other & ~pixels
        return Scribbles(kinds[True], kinds[False])

    @classmethod
    def from_maps(cls, maps: Mapping[int, np.ndarray]) -> Scribbles:
        """The scribbles of a prompt's strokes (H, W) by slice, int8: 1 on the object, -1 beside it."""
        kinds = [{k: m == v for k, m in maps.items() if (m == v).any()} for v in (1, -1)]
        return cls(*kinds)

    def maps(self) -> dict[int, np.ndarray]:
        """The scribbles as a prompt takes them: (H, W) int8 by slice, 1 on the object, -1 beside it."""
        out: dict[int, np.ndarray] = {}
        for kind, value in ((self.background, -1), (self.foreground, 1)):
            for k, pixels in kind.items():
                out.setdefault(k, np.zeros(pixels.shape, np.int8))[pixels] = value
        return out

    def clicks(self, most: int = CLICKS) -> tuple[list[Point], list[Point]]:
        """Foreground and background clicks [i, j, k], at most `most` of each kind on a slice."""
        return tuple(  # type: ignore[return-value]
            [(x, y, k) for k, pixels in kind.items() for x, y in spread_clicks(pixels, most)]
            for kind in (self.foreground, self.background)
        )

    def correct(self, masks: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
        """Masks (H, W) by slice with the foreground added and the background taken away."""
        out = dict(masks)
        for k, pixels in self.background.items():
            if k in out:
                out[k] = out[k] & ~pixels
        for k, pixels in self.foreground.items():
            out[k] = out.get(k, False) | pixels
        return out

    def mask_prompts(self, present: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
        """The present masks of the painted slices, corrected.

        They are for methods that do not correct masks themselves: a mask that agrees with all strokes has
        nothing left to correct. A stroke is not an outline: where there is no mask yet, the stroke alone is
        the better prompt.
        """
        painted = self.foreground.keys() | self.background.keys()
        there = self.correct({k: present[k] for k in painted if k in present and present[k].any()})
        return {k: mask for k, mask in there.items() if k in present and mask.any()}


def draw_stroke(points: Sequence[Sequence[float]], width: float, shape: Sequence[int]) -> np.ndarray:
    """The pixels of a stroke, (H, W) boolean.

    Args:
        points: Points [i, j] in px; the part beyond the slice is left out.
        width: Width in px; 1 is a line.
        shape: Shape (I, J, …) of the image.

    Raises:
        ValueError: There are no points, none of them lies on the slice, or the width is out of range.
    """
    if not 0 < width <= _WIDEST:
        raise ValueError(
            f"A stroke of the width {width:g} cannot be drawn; allowed is more than 0 up to {_WIDEST:g}."
        )
    at = _pixels(points, "stroke", 1)
    limit = 4 * max(shape[0], shape[1])
    if np.abs(at).max() > limit:
        raise ValueError(
            f"A stroke reaches {np.abs(at).max()} px, far beyond the slice. Draw it on the image."
        )
    pad = int(np.ceil(width / 2)) + 1
    low, high = at.min(0) - pad, at.max(0) + pad + 1
    canvas = np.zeros((high - low)[::-1], bool)
    for start, end in zip(
        at[:1] if len(at) == 1 else at[:-1], at[-1:] if len(at) == 1 else at[1:], strict=True
    ):
        canvas[line(*(start - low)[::-1], *(end - low)[::-1])] = True
    if width > 1:
        canvas = ndimage.distance_transform_edt(~canvas) <= (width - 1) / 2
    out = np.zeros((shape[1], shape[0]), bool)
    first, last = np.maximum(low, 0), np.minimum(high, shape[:2])
    if (first < last).all():
        own = tuple(slice(a - o, b - o) for a, b, o in zip(first[::-1], last[::-1], low[::-1], strict=True))
        out[first[1] : last[1], first[0] : last[0]] = canvas[own]
    if not out.any():
        raise ValueError("A stroke lies beside the image. Draw it on the image.")
    return out


def draw_lasso(k: int, points: Sequence[Sequence[float]], shape: Sequence[int]) -> tuple[Box, np.ndarray]:
    """The box and pixels that a closed line encloses.

    Args:
        k: Index of the slice.
        points: Points [i, j] in px, three or more.
        shape: Shape (I, J, K) of the image.

    Returns:
        The box around it on that slice, and its pixels (H, W) boolean.

    Raises:
        ValueError: There is no such slice, there are too few points, or nothing on the slice is enclosed.
    """
    check_slice(k, shape)
    at = _pixels(points, "lasso", 3)
    rows, columns = polygon(at[:, 1], at[:, 0], (shape[1], shape[0]))
    out = np.zeros((shape[1], shape[0]), bool)
    out[rows, columns] = True
    extent = bounding_box(out)
    if extent is None or any(low == high for low, high in extent):
        raise ValueError("The lasso encloses nothing of the image. Draw it around the object.")
    (y0, y1), (x0, x1) = extent
    return Box((x0, x1), (y0, y1), (k, k)), out


def spread_clicks(pixels: np.ndarray, most: int = CLICKS) -> list[tuple[int, int]]:
    """Points (x, y) on the skeletons of strokes (H, W), each as far as can be from those before it.

    The first one lies nearest to the middle of all; few points show where long strokes run, and every stroke
    that lies apart gets one before another gets several."""
    extent = bounding_box(pixels)
    if extent is None or most < 1:
        return []
    (y0, y1), (x0, x1) = extent
    thin = skeletonize(np.pad(pixels[y0 : y1 + 1, x0 : x1 + 1], 1))[1:-1, 1:-1]
    at = np.argwhere(thin)[:, ::-1]
    chosen = [int(np.linalg.norm(at - at.mean(0), axis=1).argmin())]
    distance = np.linalg.norm(at - at[chosen[0]], axis=1)
    while len(chosen) < most and distance.max() > 2:  # px; nearer points add no information
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(at - at[chosen[-1]], axis=1))
    return [(int(x + x0), int(y + y0)) for x, y in at[chosen]]


def strokes_to_clicks(prompt: Prompt, most: int = CLICKS) -> Prompt:
    """The same prompt for a model that takes no scribbles: clicks along the strokes, beside the user's."""
    if not prompt.scribbles:
        return prompt
    into, beside = Scribbles.from_maps(prompt.scribbles).clicks(most)
    return replace(
        prompt,
        foreground=tuple(dict.fromkeys((*prompt.foreground, *into))),
        background=tuple(dict.fromkeys((*prompt.background, *beside))),
        scribbles={},
    )


def scribbles_to_clicks(prompt: SlicePrompt, most: int = CLICKS) -> SlicePrompt:
    """As `strokes_to_clicks`, for a prompt on one slice."""
    if prompt.scribbles is None:
        return prompt
    near = [
        (xy, label)
        for label, kind in ((1, 1), (0, -1))
        for xy in spread_clicks(prompt.scribbles == kind, most)
    ]
    return replace(
        prompt,
        points=np.concatenate([prompt.points, np.array([xy for xy, _ in near], np.float32).reshape(-1, 2)]),
        labels=np.concatenate([prompt.labels, np.array([label for _, label in near], np.int64)]),
        scribbles=None,
    )


def check_slice(k: int, shape: Sequence[int]) -> None:
    """Raises ValueError if the image has no slice k."""
    if not 0 <= k < shape[2]:
        raise ValueError(f"There is no slice {k}; the image has the slices 0 to {shape[2] - 1}.")


def _pixels(points: Sequence[Sequence[float]], what: str, least: int) -> np.ndarray:
    """(N, 2) whole numbers."""
    at = np.array([list(point)[:2] if len(point) == 2 else [np.nan] * 2 for point in points], float).reshape(
        -1, 2
    )
    if len(at) < least or not np.isfinite(at).all() or np.abs(at).max() > 1e6:
        raise ValueError(
            f"A {what} needs {least} or more points [i, j] of finite numbers in voxels. Draw it again."
        )
    return np.rint(at).astype(int)
