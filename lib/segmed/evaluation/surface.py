"""Distances between the surfaces of two masks, by MONAI, and the metrics that follow from them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segmed.imaging.labels.masks import bounding_box
from segmed.monai_parts import get_mask_edges, get_surface_distance

Distances = tuple[np.ndarray, np.ndarray]


def surface_distances(
    found: np.ndarray, truth: np.ndarray, spacing: Sequence[float] | None = None
) -> Distances | None:
    """Compute the distances between the edges of two boolean masks, from which HD, HD95 and NSD follow.

    Args:
        found: The predicted mask, (H, W) or (I, J, K).
        truth: The true mask of the same shape.
        spacing: Distance of neighbouring pixels along each axis, or None for 1.

    Returns:
        The distance of each pixel on the edge of the one mask to the edge of the other, and the other way
        round; None if one mask is empty.

    Raises:
        ValueError: If the shapes differ, or the spacing has another number of axes.
    """
    if found.shape != truth.shape:
        raise ValueError(f"Masks of shapes {found.shape} and {truth.shape} cannot be compared.")
    if spacing is not None and len(spacing) != truth.ndim:
        raise ValueError(
            f"A spacing of {len(spacing)} axes does not fit masks of {truth.ndim}. Give one per axis."
        )
    both = bounding_box(found | truth)
    if both is None or not found.any() or not truth.any():
        return None
    box = tuple(slice(low, high + 1) for low, high in both)  # faster than the crop of MONAI
    first, second = get_mask_edges(found[box], truth[box], crop=False)
    scale = None if spacing is None else tuple(map(float, spacing))
    there = np.asarray(get_surface_distance(first, second, spacing=scale))
    return there, np.asarray(get_surface_distance(second, first, spacing=scale))


def hausdorff(distances: Distances) -> tuple[float, float]:
    """HD95, the larger of the 95th percentiles of both directions, and HD, the largest distance."""
    hd95, hd = (max(float(np.percentile(part, share)) for part in distances) for share in (95, 100))
    return hd95, hd


def share_within(distances: Distances, tolerance: float) -> float:
    """Normalised surface Dice: the share of both edges within a tolerance of the other one."""
    return float((np.concatenate(distances) <= tolerance).mean())


def surface_dice(
    found: np.ndarray, truth: np.ndarray, tolerance: float, spacing: Sequence[float] | None = None
) -> float:
    """Compute the normalised surface Dice of two boolean masks (Nikolov et al., JMIR 2021).

    Args:
        found: The predicted mask, (H, W) or (I, J, K).
        truth: The true mask of the same shape.
        tolerance: Allowed distance of the surfaces in the unit of `spacing`.
        spacing: Distance of neighbouring pixels along each axis, or None for 1, so that the tolerance is in
            px.

    Returns:
        A share from 0 to 1; 0 if one mask is empty, NaN if both are.

    Raises:
        ValueError: If the shapes differ, or the spacing has another number of axes.
    """
    distances = surface_distances(found, truth, spacing)
    if distances is None:
        return 0.0 if found.any() or truth.any() else float("nan")
    return share_within(distances, tolerance)
