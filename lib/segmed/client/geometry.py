"""Prompts as viewers draw them: positions in the patient, lines in any plane of the voxel grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

PLANES = ("sagittal", "coronal", "axial")
"""Planes by the voxel axis i, j, k along which their slices are counted: names for the usual orientation."""


@dataclass(frozen=True)
class Stroke:
    """A scribble on a slice.

    Attributes:
        k: Index of the slice.
        foreground: Whether it runs through the object, or beside it.
        points: Positions [i, j] along the stroke, in voxels; in another plane the two voxel axes that
            remain, in their order.
        width: Width in voxels.
        plane: Plane of the slice.
    """

    k: int
    foreground: bool
    points: list[list[float]]
    width: float = 3.0
    plane: str = "axial"

    def to_json(self) -> dict[str, Any]:
        """The stroke as a JSON value; `plane` is sent only where it is not the usual one."""
        return _without_usual_plane(asdict(self))


@dataclass(frozen=True)
class Lasso:
    """A closed line on a slice; `points` and `plane` as in `Stroke`."""

    k: int
    points: list[list[float]]
    plane: str = "axial"

    def to_json(self) -> dict[str, Any]:
        """The line as a JSON value; `plane` is sent only where it is not the usual one."""
        return _without_usual_plane(asdict(self))


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
        planes: Whether the server takes strokes in other planes. Otherwise the line is divided into one
            stroke for each axial slice that it crosses.
    """
    axis = _axis(points)
    if planes or axis == 2:
        k, flat = _on_slice(points, axis)
        return [Stroke(k, foreground, flat, width, PLANES[axis])]
    dense = _dense(points)
    slices = np.round(dense[:, 2]).astype(int)
    cuts = np.flatnonzero(np.diff(slices)) + 1
    return [
        Stroke(int(np.round(part[0, 2])), foreground, part[:, :2].tolist(), width)
        for part in np.split(dense, cuts)
    ]


def lasso_through(points: np.ndarray, planes: bool = False) -> Lasso:
    """The closed line through voxel positions (N, 3); the arguments are those of `strokes_through`.

    Raises:
        ValueError: The line lies in another plane, and the server takes none there.
    """
    axis = _axis(points)
    if axis != 2 and not planes:
        raise ValueError(
            f"This server takes a lasso in axial slices only, and this one lies in a {PLANES[axis]} one. "
            "Draw a box "
            "or a scribble there, or update the server."
        )
    k, flat = _on_slice(points, axis)
    return Lasso(k, flat, PLANES[axis])


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


def _without_usual_plane(told: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in told.items() if (key, value) != ("plane", "axial")}
