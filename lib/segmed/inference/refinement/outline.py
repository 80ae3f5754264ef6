"""Outline prompts: points along the outline of a rough mask as a second prompt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.measure import find_contours, label, regionprops

from segmed.imaging.labels.masks import slice_box
from segmed.imaging.prompts import SlicePrompt

_FRAME = 1024  # longer side in px of the slice that lengths refer to ("frame")


@dataclass(frozen=True)
class OutlineConfig:
    """The placement of the points; lengths are in px of a slice whose longer side has 1024 px ("frame").

    Attributes:
        spacing: Distance between points in px of the frame.
        fewest: Smallest number of points on each outline.
        most: Largest number of points on each outline.
        inward: Distance of the points inside the outline, as a share of the local inscribed radius; points on
            the edge itself are ambiguous.
        outward: Distance of background points outside the outline in px of the frame; 0 for none.
        margin: Margin of the box around the mask in px of the frame.
        min_area: Smallest area in px of the frame of pieces with points; if all are smaller, the largest has
            points.
        with_mask: Whether the rough mask is part of the prompt.
        rounds: Number of predictions, each prompted with the outline of the previous mask.
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
        if (
            self.spacing <= 0
            or not 1 <= self.fewest <= self.most
            or not 0 <= self.inward < 1
            or self.rounds < 1
        ):
            raise ValueError(
                f"{self} is not allowed: spacing must be above 0, 1 ≤ fewest ≤ most, inward from 0 to below "
                "1, and rounds 1 or more."
            )


def outline_prompt(mask: np.ndarray, config: OutlineConfig | None = None) -> SlicePrompt:
    """Describe a rough mask by a box, points and optionally the mask itself.

    Args:
        mask: The boolean mask (H, W), not empty.
        config: The placement of the points.

    Returns:
        A prompt with equidistant points just inside the outline of each piece of the mask and its innermost
        point, the box around all pieces, and background points outside if `outward` is set.
    """
    # With d the signed distance to the edge (positive inside), the inward normal at a point x of the outline
    # is n = grad d / |grad d|, and the prompt point is x + inward * r n, with r the radius of the inscribed
    # circle there.
    config = config or OutlineConfig()
    scale = _FRAME / max(mask.shape)  # px of the frame per px of the slice
    pieces = label(mask, connectivity=2)
    large = [r for r in regionprops(pieces) if r.area * scale * scale >= config.min_area]
    wanted = [r.label for r in large] or [int(np.bincount(pieces[pieces > 0]).argmax())]
    inside, outside = [], []
    for number in wanted:
        piece = np.pad(pieces == number, 1)
        depth = ndimage.distance_transform_edt(piece)
        into = np.stack(
            np.gradient(ndimage.gaussian_filter(depth - ndimage.distance_transform_edt(~piece), 1.0))
        )
        contour = max(find_contours(piece.astype(float), 0.5), key=len)
        points = _evenly(contour, config, scale)
        direction = np.stack(
            [ndimage.map_coordinates(g, points.T, order=1, mode="nearest") for g in into], axis=1
        )
        direction /= np.linalg.norm(direction, axis=1, keepdims=True).clip(1e-6)
        radius = _inscribed(depth, points, direction)
        inside.append(_kept(points + config.inward * radius[:, None] * direction, piece, True))
        inside.append(np.array([np.unravel_index(depth.argmax(), depth.shape)], float))
        if config.outward:
            outside.append(_kept(points - config.outward / scale * direction, np.pad(mask, 1), False))
    # Back to coordinates without the padding of one pixel.
    fore, back = (
        np.concatenate(inside) - 1,
        np.concatenate([*outside, np.ones((0, 2))]) - 1,
    )
    x0, y0, x1, y1 = slice_box(mask)
    margin, (height, width) = config.margin / scale, mask.shape
    box = (
        max(x0 - margin, 0.0),
        max(y0 - margin, 0.0),
        min(x1 + margin, width - 1.0),
        min(y1 + margin, height - 1.0),
    )
    return SlicePrompt(
        box,
        np.concatenate([fore, back])[:, ::-1].astype(np.float32),
        np.array([1] * len(fore) + [0] * len(back), np.int64),
        mask if config.with_mask else None,
    )


def _evenly(contour: np.ndarray, config: OutlineConfig, scale: float) -> np.ndarray:
    """Points (N, 2) as (row, column) at equal distances along a closed contour."""
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(contour, axis=0), axis=1))])
    count = int(np.clip(round(length[-1] * scale / config.spacing), config.fewest, config.most))
    at = np.arange(count) * length[-1] / count
    return np.stack([np.interp(at, length, contour[:, axis]) for axis in (0, 1)], axis=1)


def _inscribed(depth: np.ndarray, points: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Radius (N,) of the inscribed circle at each point: the first maximum of `depth` on the way inward."""
    steps = np.arange(int(depth.max()) + 2)
    way = points[:, None] + steps[None, :, None] * direction[:, None]
    depths = ndimage.map_coordinates(depth, way.reshape(-1, 2).T, order=1, mode="constant").reshape(
        len(points), -1
    )
    rising = np.minimum.accumulate(np.diff(depths, axis=1, prepend=-1) > 0, axis=1)  # up to the first maximum
    return np.asarray(np.where(rising, depths, 0).max(axis=1))


def _kept(points: np.ndarray, mask: np.ndarray, inside: bool) -> np.ndarray:
    """Keep the points whose pixel lies on the slice and, as `inside` demands, in or outside of the mask."""
    pixel = points.round().astype(int)
    within = ((pixel >= 1) & (pixel < np.array(mask.shape) - 1)).all(axis=1)  # excludes the padding
    pixel = pixel.clip(0, np.array(mask.shape) - 1)
    return np.asarray(points[within & (mask[pixel[:, 0], pixel[:, 1]] == inside)])
