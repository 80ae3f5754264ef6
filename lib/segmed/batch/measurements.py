"""Measurements of the structures in a label map, by scikit-image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from skimage.measure import label, marching_cubes, mesh_surface_area, perimeter, regionprops

from segmed.imaging.labels.masks import bounding_box

COLUMNS = (
    "label",
    "name",
    "empty",
    "voxels",
    "volume_ml",
    "mean_intensity",
    "sd_intensity",
    "longest_axis_mm",
    "surface_mm2",
    "components",
)
UNCERTAINTY = "uncertainty"  # of the model about the whole image, if the run measures it


def measure(
    labels: np.ndarray, image: np.ndarray, spacing: tuple[float, float, float], names: Mapping[int, str]
) -> list[dict[str, Any]]:
    """Measure each structure of a label map.

    Args:
        labels: Label map (I, J, K) of integers, 0 the background.
        image: Intensities (I, J, K) as stored, or (I, J, K, 3), of which the mean over the colours counts.
        spacing: Size of a voxel in mm.
        names: Names of all values that the model can give; those without voxels are reported as empty.

    Returns:
        One row per name: the keys of `COLUMNS`. `longest_axis_mm` is the length of the major axis of the
        ellipsoid with the same second moments (on a single slice, of the ellipse); `surface_mm2` is that of
        the mesh by marching cubes (whose steps between voxels make curved surfaces up to a fifth too large),
        on a single slice the perimeter times the thickness of the slice;
        `components` counts parts that touch by faces, edges or corners. Intensities are in units of the
        file.
    """
    return [_row(labels == value, image, spacing, value, name) for value, name in sorted(names.items())]


def _row(
    mask: np.ndarray, image: np.ndarray, spacing: tuple[float, float, float], value: int, name: str
) -> dict[str, Any]:
    found = bounding_box(mask)
    if found is None:
        nothing: dict[str, Any] = dict.fromkeys(COLUMNS)
        return nothing | {
            "label": value,
            "name": name,
            "empty": True,
            "voxels": 0,
            "volume_ml": 0.0,
            "components": 0,
        }
    crop = tuple(slice(low, high + 1) for low, high in found)
    inside, values = mask[crop], image[crop][mask[crop]].astype(np.float64)
    if values.ndim == 2:  # colours
        values = values.mean(1)
    voxels = int(inside.sum())
    return {
        "label": value,
        "name": name,
        "empty": False,
        "voxels": voxels,
        "volume_ml": voxels * math.prod(spacing) / 1000,
        "mean_intensity": float(values.mean()),
        "sd_intensity": float(values.std()),
        "longest_axis_mm": _longest_axis(inside, mask.shape[2] == 1, spacing),
        "surface_mm2": _surface(inside, mask.shape[2] == 1, spacing),
        "components": int(label(inside, connectivity=inside.ndim, return_num=True)[1]),
    }


def _longest_axis(inside: np.ndarray, flat: bool, spacing: tuple[float, float, float]) -> float | None:
    shape, sizes = (inside[:, :, 0], spacing[:2]) if flat else (inside, spacing)
    try:
        length = float(regionprops(shape.astype(np.uint8), spacing=sizes)[0].axis_major_length)
    except ValueError:  # moments of a few voxels may be slightly negative
        return None
    return length if math.isfinite(length) else None


def _surface(inside: np.ndarray, flat: bool, spacing: tuple[float, float, float]) -> float:
    if flat:
        if math.isclose(spacing[0], spacing[1], rel_tol=0.01):
            return float(perimeter(np.pad(inside[:, :, 0], 1)) * spacing[0] * spacing[2])
        edges = (
            np.diff(np.pad(inside[:, :, 0], 1).astype(np.int8), axis=0),
            np.diff(np.pad(inside[:, :, 0], 1).astype(np.int8), axis=1),
        )
        along_j, along_i = (float(np.abs(edge).sum()) for edge in edges)
        return (along_j * spacing[1] + along_i * spacing[0]) * spacing[2]
    vertices, faces, _, _ = marching_cubes(np.pad(inside, 1).astype(np.float32), 0.5, spacing=spacing)
    return float(mesh_surface_area(vertices, faces))
