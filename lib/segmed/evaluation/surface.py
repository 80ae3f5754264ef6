"""Normalised surface Dice: the share of both surfaces that lies within a tolerance of the other surface."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch

from segmed.imaging.labels.masks import bounding_box
from segmed.monai_parts import compute_surface_dice


def surface_dice(
    found: np.ndarray, truth: np.ndarray, tolerance: float, spacing: Sequence[float] | None = None
) -> float:
    """Compute MONAI's surface Dice of two boolean masks (Nikolov et al., JMIR 2021).

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
    if found.shape != truth.shape:
        raise ValueError(f"Masks of shapes {found.shape} and {truth.shape} cannot be compared.")
    if spacing is not None and len(spacing) != truth.ndim:
        raise ValueError(
            f"A spacing of {len(spacing)} axes does not fit masks of {truth.ndim}. Give one per axis."
        )
    both = bounding_box(found | truth)
    if both is None:
        return float("nan")
    if not found.any() or not truth.any():
        return 0.0
    box = tuple(slice(low, high + 1) for low, high in both)
    first, second = (
        torch.from_numpy(np.ascontiguousarray(m[box], dtype=bool))[None, None] for m in (found, truth)
    )
    scale = None if spacing is None else [float(v) for v in spacing]
    with warnings.catch_warnings():  # MONAI warns about its own arguments at each call
        warnings.simplefilter("ignore", FutureWarning)
        score = compute_surface_dice(first, second, [tolerance], include_background=True, spacing=scale)
    return float(score[0, 0])
