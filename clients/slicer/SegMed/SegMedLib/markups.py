"""What users draw with the markups of 3D Slicer, as voxel positions of an image."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import slicer


def points_of(node: Any) -> np.ndarray:
    """Positions (N, 3) of the points of a markups node in RAS mm."""
    out = np.zeros((node.GetNumberOfControlPoints(), 3))
    for n in range(len(out)):
        position = [0.0, 0.0, 0.0]
        node.GetNthControlPointPositionWorld(n, position)
        out[n] = position
    return out


def curve_of(node: Any) -> np.ndarray:
    """Positions (N, 3) along a curve in RAS mm; a curve of one point has that position."""
    if node.GetNumberOfControlPoints() < 2:
        return points_of(node)
    return np.asarray(slicer.util.arrayFromMarkupsCurvePoints(node, world=True), float).reshape(-1, 3)


def corners_of(node: Any) -> np.ndarray:
    """The eight corners (8, 3) of a region of interest in RAS mm; it may be turned."""
    matrix = slicer.util.arrayFromVTKMatrix(node.GetObjectToWorldMatrix())
    half = np.array(node.GetSize(), float) / 2
    signs = np.array(list(itertools.product((-1.0, 1.0), repeat=3)))
    return (matrix[:3, :3] @ (signs * half).T).T + matrix[:3, 3]


def box_in_voxels(corners: np.ndarray, shape: tuple[int, ...]) -> list[float]:
    """The box [i0, i1, j0, j1, k0, k1] around voxel positions (8, 3), within an image.

    A region of interest that lies between two slices, or outside of the image, becomes a box on the
    nearest slice.
    """
    last = np.array(shape) - 1
    low = np.clip(np.ceil(corners.min(0) - 0.5), 0, last)
    high = np.clip(np.floor(corners.max(0) + 0.5), 0, last)
    thin = high < low
    low[thin] = high[thin] = np.clip(np.round(corners.mean(0)), 0, last)[thin]
    return [float(end) for pair in zip(low, high) for end in pair]  # noqa: B905, not in Python 3.9
