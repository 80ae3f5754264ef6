"""Prompts as viewers draw them: positions in the patient, lines in any plane of the voxel grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Stroke:
    """A scribble on a slice.

    Attributes:
        k: Index of the slice along `axis`.
        foreground: Whether it runs through the object, or beside it.
        points: Positions [i, j] along the stroke, in voxels; on a slice across another axis, the two axes
            that remain, in their order.
        width: Width in voxels.
        axis: Axis of the voxel grid across the slice.
    """

    k: int
    foreground: bool
    points: list[list[float]]
    width: float = 3.0
    axis: int = 2

    def to_json(self) -> dict[str, Any]:
        """The stroke as a JSON value; its plane is that of the whole request."""
        return {"k": self.k, "foreground": self.foreground, "points": self.points, "width": self.width}


@dataclass(frozen=True)
class Lasso:
    """A closed line on a slice; the attributes are those of `Stroke`."""

    k: int
    points: list[list[float]]
    axis: int = 2

    def to_json(self) -> dict[str, Any]:
        """The line as a JSON value; its plane is that of the whole request."""
        return {"k": self.k, "points": self.points}


def to_voxels(
    points: Sequence[Sequence[float]] | np.ndarray, affine: Sequence[Sequence[float]]
) -> np.ndarray:
    """Voxel indices (N, 3), float, of positions in RAS mm.

    Args:
        points: Positions (N, 3) in RAS mm.
        affine: Voxel indices to RAS mm, (4, 4), as of `ImageInfo`.
    """
    given = np.asarray(points, float).reshape(-1, 3)
    return (np.linalg.inv(np.asarray(affine, float)) @ np.c_[given, np.ones(len(given))].T).T[:, :3]


def box_around(points: np.ndarray) -> list[float]:
    """The box [i0, i1, j0, j1, k0, k1] around voxel positions (N, 3)."""
    low, high = np.round(points.min(0)), np.round(points.max(0))
    return [float(end) for pair in zip(low, high) for end in pair]  # noqa: B905, not in Python 3.9


def strokes_through(
    points: np.ndarray, foreground: bool, width: float = 3.0, planes: bool = False
) -> list[Stroke]:
    """The strokes of a line through voxel positions.

    Args:
        points: Positions (N, 3) in voxels, in any plane of the grid.
        foreground: Whether the line runs through the object.
        width: Width in voxels.
        planes: Whether to keep a line in another plane than that of the stored slices whole, for a request
            with a model in that plane. Otherwise it is divided into a stroke for each stored slice that it
            crosses.
    """
    axis = _axis(points)
    if planes or axis == 2:
        k, flat = _on_slice(points, axis)
        return [Stroke(k, foreground, flat, width, axis)]
    dense = _dense(points)
    cuts = np.flatnonzero(np.diff(np.round(dense[:, 2]))) + 1
    return [
        Stroke(int(np.round(part[0, 2])), foreground, part[:, :2].tolist(), width)
        for part in np.split(dense, cuts)
    ]


def lasso_through(points: np.ndarray) -> Lasso:
    """The closed line through voxel positions (N, 3), in any plane of the grid."""
    axis = _axis(points)
    return Lasso(*_on_slice(points, axis), axis)


def _axis(points: np.ndarray) -> int:
    """The voxel axis along which a line varies least; k if several do."""
    spread = np.ptp(points, axis=0)
    return int(2 - np.argmin(spread[::-1].round(3)))


def _on_slice(points: np.ndarray, axis: int) -> tuple[int, list[list[float]]]:
    return int(np.round(np.median(points[:, axis]))), np.delete(points, axis, 1).tolist()


def _dense(points: np.ndarray) -> np.ndarray:
    """The line with positions at most half a voxel apart."""
    if len(points) < 2:
        return points
    pieces = [
        np.linspace(a, b, max(2, int(np.ceil(2 * np.abs(b - a).max())) + 1))[:-1]
        for a, b in zip(points[:-1], points[1:])  # noqa: B905, RUF007, not in Python 3.9
    ]
    return np.concatenate([*pieces, points[-1:]])
