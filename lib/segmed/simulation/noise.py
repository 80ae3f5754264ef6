"""Smooth random displacements, for variations of strokes and of anatomy."""

from __future__ import annotations

import cv2
import numpy as np


def smooth_noise(size: int, cells: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth random displacements (S, S, 2) of about [-1, 1], from `cells` values along each side."""
    coarse = rng.uniform(-1, 1, (cells, cells, 2)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC))


def resample(image: np.ndarray, places: np.ndarray, repeat_edge: bool = False) -> np.ndarray:
    """Interpolate an image (H, W) or (H, W, C) linearly at places (h, w, 2), which are x, y in px.

    Beyond the image the result is 0, or the edge of the image with `repeat_edge`.
    """
    x, y = (np.ascontiguousarray(places[..., n], np.float32) for n in (0, 1))
    edge = cv2.BORDER_REPLICATE if repeat_edge else cv2.BORDER_CONSTANT
    return np.asarray(cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=edge))
