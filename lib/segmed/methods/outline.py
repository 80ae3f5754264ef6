"""Points along the outline of a rough mask as a second prompt: SAM's answer to irregular shapes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.measure import find_contours, label, regionprops

from segmed.imaging.masks import slice_box
from segmed.imaging.prompts import SlicePrompt

_FRAME = 1024  # px; lengths below are in a frame of this side


@dataclass(frozen=True)
class OutlineConfig:
    """How points are set.

    Attributes:
        spacing: px of the frame between points.
        fewest: points on each outline.
        most: likewise.
        inward: by which share of the local inscribed radius points lie inside; on the edge itself they are ambiguous.
        outward: px of the frame by which the background points lie outside; 0 for none.
        margin: px of the frame by which the box is wider than the mask.
        min_area: px of the frame; smaller pieces of the mask get no points, unless they are all there is.
        with_mask: whether the rough mask is a prompt too.
        rounds: how often the answer is prompted again.
    """

    spacing: float = 40.0
    fewest: int = 4
    most: int = 16
    inward: float = 0.15
    outward: float = 0.0
    margin: float = 5.0
    min_area: int = 100
    with_mask: bool = True
    rounds: int = 2

    def __post_init__(self) -> None:
        if self.spacing <= 0 or not 1 <= self.fewest <= self.most or not 0 <= self.inward < 1 or self.rounds < 1:
            raise ValueError(
                f"{self} is not usable: spacing above 0, 1 ≤ fewest ≤ most, inward from 0 to below 1, rounds 1 or more."
            )


def outline_prompt(mask: np.ndarray, config: OutlineConfig | None = None) -> SlicePrompt:
    """Box, points and mask that describe a rough mask.

    Args:
        mask: (H, W) boolean, not empty.
        config: of the points.

    Returns:
        For each piece of the mask, points just inside its outline at equal distances and its innermost point; the box
        around all of them; background points outside if wanted.
    """
    config = config or OutlineConfig()
    scale = _FRAME / max(mask.shape)  # px of the frame per px of the slice
    pieces = label(mask, connectivity=2)
    large = [r for r in regionprops(pieces) if r.area * scale * scale >= config.min_area]
    wanted = [r.label for r in large] or [int(np.bincount(pieces[pieces > 0]).argmax())]
    inside, outside = [], []
    for number in wanted:
        piece = np.pad(pieces == number, 1)
        depth = ndimage.distance_transform_edt(piece)
        into = np.stack(np.gradient(ndimage.gaussian_filter(depth - ndimage.distance_transform_edt(~piece), 1.0)))
        contour = max(find_contours(piece.astype(float), 0.5), key=len)
        points = _evenly(contour, config, scale)
        direction = np.stack([ndimage.map_coordinates(g, points.T, order=1, mode="nearest") for g in into], axis=1)
        direction /= np.linalg.norm(direction, axis=1, keepdims=True).clip(1e-6)
        radius = _inscribed(depth, points, direction)
        inside.append(_kept(points + config.inward * radius[:, None] * direction, piece, True))
        inside.append(np.array([np.unravel_index(depth.argmax(), depth.shape)], float))
        if config.outward:
            outside.append(_kept(points - config.outward / scale * direction, np.pad(mask, 1), False))
    fore, back = np.concatenate(inside) - 1, np.concatenate([*outside, np.ones((0, 2))]) - 1  # less the padding
    x0, y0, x1, y1 = slice_box(mask)
    margin, (height, width) = config.margin / scale, mask.shape
    box = (max(x0 - margin, 0.0), max(y0 - margin, 0.0), min(x1 + margin, width - 1.0), min(y1 + margin, height - 1.0))
    return SlicePrompt(
        box,
        np.concatenate([fore, back])[:, ::-1].astype(np.float32),
        np.array([1] * len(fore) + [0] * len(back), np.int64),
        mask if config.with_mask else None,
    )


def _evenly(contour: np.ndarray, config: OutlineConfig, scale: float) -> np.ndarray:
    """(N, 2) points (row, column) at equal distances along a closed contour."""
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(contour, axis=0), axis=1))])
    count = int(np.clip(round(length[-1] * scale / config.spacing), config.fewest, config.most))
    at = np.arange(count) * length[-1] / count
    return np.stack([np.interp(at, length, contour[:, axis]) for axis in (0, 1)], axis=1)


def _inscribed(depth: np.ndarray, points: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """(N,) radius of the largest circle inside that is met on the way inward from each point."""
    steps = np.arange(int(depth.max()) + 2)
    way = points[:, None] + steps[None, :, None] * direction[:, None]
    met = ndimage.map_coordinates(depth, way.reshape(-1, 2).T, order=1, mode="constant").reshape(len(points), -1)
    rising = np.minimum.accumulate(np.diff(met, axis=1, prepend=-1) > 0, axis=1)  # until the far side comes nearer
    return np.asarray(np.where(rising, met, 0).max(axis=1))


def _kept(points: np.ndarray, mask: np.ndarray, inside: bool) -> np.ndarray:
    """Points whose pixel lies where it should; the others say something wrong."""
    pixel = points.round().astype(int)
    within = ((pixel >= 1) & (pixel < np.array(mask.shape) - 1)).all(axis=1)  # the padding is no part of the slice
    pixel = pixel.clip(0, np.array(mask.shape) - 1)
    return np.asarray(points[within & (mask[pixel[:, 0], pixel[:, 1]] == inside)])
