"""Level sets that move the edge of a mask, within a narrow band, to edges of the image.

Sources: Chan and Vese, Active Contours Without Edges, 2001; Caselles, Kimmel and Sapiro, Geodesic Active
Contours, 1997; both in the morphological form of Márquez-Neila, Baumela and Alvarez, 2014, as implemented in
scikit-image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage
from skimage.segmentation import (
    inverse_gaussian_gradient,
    morphological_chan_vese,
    morphological_geodesic_active_contour,
)


@dataclass(frozen=True)
class LevelSetConfig:
    """The settings of the level set.

    Attributes:
        kind: `regions` (Chan-Vese: uniform grey values inside and outside) or `edges` (geodesic).
        iterations: Number of iterations.
        band: Largest distance in px by which the edge may move.
        smoothing: Smoothing steps per iteration.
    """

    kind: Literal["regions", "edges"] = "regions"
    iterations: int = 30
    band: int = 10
    smoothing: int = 1

    def __post_init__(self) -> None:
        if self.kind not in ("regions", "edges") or min(self.iterations, self.band, self.smoothing) < 1:
            raise ValueError(
                f"{self} is not allowed: kind must be 'regions' or 'edges', and all numbers must be above 0."
            )


def level_set(image: np.ndarray, mask: np.ndarray, config: LevelSetConfig | None = None) -> np.ndarray:
    """Move the edge of a mask to edges of the image.

    Args:
        image: The slice, (H, W) or (H, W, 3), uint8.
        mask: The boolean mask, (H, W).
        config: The settings.

    Returns:
        The boolean mask (H, W), changed only within the band around its edge.
    """
    # `regions` minimises the variance of grey values inside plus that outside of the edge; `edges` lets it
    # shrink or grow until it meets large gradients, g = 1 / sqrt(1 + 100 |grad(G * I)|) with G a Gaussian of
    # 2 px. Pixels farther than `band` from the edge of `mask` keep their labels.
    config = config or LevelSetConfig()
    if not mask.any() or mask.all():
        return mask
    grey = image.mean(axis=-1) if image.ndim == 3 else image.astype(float)
    grey /= 255
    start = mask.astype(np.int8)
    if config.kind == "regions":
        moved = morphological_chan_vese(grey, config.iterations, start, smoothing=config.smoothing)
    else:
        slope = inverse_gaussian_gradient(grey, alpha=100.0, sigma=2.0)
        moved = morphological_geodesic_active_contour(
            slope, config.iterations, start, smoothing=config.smoothing, threshold="auto", balloon=0
        )
    distance = np.where(mask, ndimage.distance_transform_edt(mask), ndimage.distance_transform_edt(~mask))
    return np.where(distance <= config.band, moved > 0, mask)
