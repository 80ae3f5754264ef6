"""Baselines that need only a box and no training, which every method should exceed."""

from __future__ import annotations

import cv2
import numpy as np

Corners = tuple[float, float, float, float]


def inscribed_ellipse(box: Corners, size: tuple[int, int]) -> np.ndarray:
    """The ellipse that touches the four sides of a box (x0, y0, x1, y1; ends inclusive): (H, W) boolean."""
    x0, y0, x1, y1 = box
    y, x = np.mgrid[: size[0], : size[1]]
    radius_x, radius_y = (x1 - x0 + 1) / 2, (y1 - y0 + 1) / 2
    return np.asarray(((x - (x0 + x1) / 2) / radius_x) ** 2 + ((y - (y0 + y1) / 2) / radius_y) ** 2 <= 1)


def grabcut(image: np.ndarray, box: Corners, rounds: int = 5) -> np.ndarray:
    """Run OpenCV's GrabCut in a box (Rother et al., SIGGRAPH 2004), for colour and grey slices.

    Args:
        image: The slice, (H, W) or (H, W, 3), uint8.
        box: The box as x0, y0, x1, y1 in px, ends inclusive.
        rounds: Number of iterations.

    Returns:
        The boolean mask (H, W), empty if there is no background outside of the box.
    """
    colour = np.ascontiguousarray(np.repeat(image[..., None], 3, 2) if image.ndim == 2 else image)
    x0, y0, x1, y1 = (int(v) for v in box)
    mask = np.zeros(image.shape[:2], np.uint8)
    if (x1 - x0 + 1) * (y1 - y0 + 1) >= mask.size:
        return mask.astype(bool)
    cv2.setRNGSeed(0)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    try:
        cv2.grabCut(colour, mask, (x0, y0, x1 - x0 + 1, y1 - y0 + 1), *models, rounds, cv2.GC_INIT_WITH_RECT)
    except cv2.error:  # too few pixels on one side
        return np.zeros(mask.shape, bool)
    return np.isin(mask, (cv2.GC_FGD, cv2.GC_PR_FGD))
