"""A conditional random field that moves a mask to the edges of the image, by local mean-field updates.

Source: Krähenbühl and Koltun, Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials, 2011
(energy and updates). The sums over all pairs are restricted to windows around each pixel; the wide window is
subsampled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

_NEAR, _FAR = 5, 10  # taps to each side of the narrow and the wide window
_KEPT_BYTES = 2**28  # weights that take more memory are computed again in each update


@dataclass(frozen=True)
class CrfConfig:
    """The kernels of a field with two labels.

    Attributes:
        smooth_width: Standard deviation in px of the smoothness kernel, which depends on distance only.
        smooth_weight: Weight of the smoothness kernel.
        edge_width: Spatial standard deviation of the appearance kernel, in px of an image whose longer side
            has 500 px; it is scaled for other images.
        edge_contrast: Standard deviation of the appearance kernel in grey values (0 to 255).
        edge_weight: Weight of the appearance kernel.
        iterations: Number of mean-field updates.
    """

    smooth_width: float = 3.0
    smooth_weight: float = 3.0
    edge_width: float = 80.0
    edge_contrast: float = 13.0
    edge_weight: float = 10.0
    iterations: int = 5

    def __post_init__(self) -> None:
        widths = (self.smooth_width, self.edge_width, self.edge_contrast)
        if min(widths) <= 0 or min(self.smooth_weight, self.edge_weight) < 0 or self.iterations < 1:
            raise ValueError(
                f"{self} is not allowed: widths, edge_contrast and iterations must be above 0, and weights 0 "
                "or more."
            )


@torch.inference_mode()
def crf(image: np.ndarray, probability: np.ndarray, config: CrfConfig | None = None) -> np.ndarray:
    """Align the edge of a probability map with the edges of the image.

    Args:
        image: The slice, (H, W) or (H, W, 3), uint8.
        probability: Probability of the object, (H, W).
        config: The kernels and the number of updates.

    Returns:
        The updated probability of the object, (H, W).
    """
    # Mean-field update with two labels: p <- sigmoid(logit(p_0) + sum over kernels m of w_m (2 <p>_m - 1)),
    # where <p>_m is the mean of p over the neighbours of a pixel, weighted by kernel m. The message for the
    # other label is w_m (1 - <p>_m), which is why the difference of both messages is w_m (2 <p>_m - 1).
    config = config or CrfConfig()
    pixels = (
        torch.from_numpy(np.ascontiguousarray(image)).float().reshape(*image.shape[:2], -1).permute(2, 0, 1)
    )
    p = torch.from_numpy(probability.astype(np.float32)).clamp(1e-6, 1 - 1e-6)
    unary = p.logit()
    step = max(round(config.edge_width * max(image.shape[:2]) / 500 / _FAR), 1)
    near = _Window(pixels, _NEAR, 1, config.smooth_width, None)
    far = _Window(pixels, _FAR, step, config.edge_width * max(image.shape[:2]) / 500, config.edge_contrast)
    for _ in range(config.iterations):
        pull = config.smooth_weight * (2 * near.mean(p) - 1) + config.edge_weight * (2 * far.mean(p) - 1)
        p = torch.sigmoid(unary + pull)
    return p.numpy()


class _Window:
    """Weighted means over the neighbours of each pixel, without the pixel itself.

    The weight of a neighbour at distance d with difference c of the pixel values is exp(-d² / (2 width²) - c²
    / (2 contrast²)); without a contrast only the first term counts.

    Args:
        pixels: The image, (C, H, W).
        taps: Neighbours to each side, along rows and columns.
        step: Distance between neighbours in px.
        width: Spatial standard deviation in px.
        contrast: Standard deviation of pixel values, or None.
    """

    def __init__(self, pixels: Tensor, taps: int, step: int, width: float, contrast: float | None) -> None:
        self._pixels, self._width, self._contrast = pixels, width, contrast
        self._reach = taps * step
        near = range(-self._reach, self._reach + 1, step)
        self._steps = [(dy, dx) for dy in near for dx in near if (dy, dx) != (0, 0)]
        self._inside, self._around = self._padded(torch.ones_like(pixels[0])), self._padded(pixels)
        small = len(self._steps) * pixels[0].nbytes <= _KEPT_BYTES
        self._kept = list(map(self._weight, self._steps)) if small else None

    def mean(self, values: Tensor) -> Tensor:
        """Weighted mean of the neighbours' values, (H, W)."""
        padded = self._padded(values)
        total, weights = torch.zeros_like(values), torch.full_like(values, 1e-12)
        for step, weight in zip(self._steps, self._kept or map(self._weight, self._steps), strict=True):
            total.addcmul_(weight, self._shifted(padded, step))
            weights += weight
        return total / weights

    def _weight(self, step: tuple[int, int]) -> Tensor:
        decay = (step[0] ** 2 + step[1] ** 2) / (2 * self._width**2)
        weight = self._shifted(self._inside, step) * math.exp(-decay)
        if self._contrast is None:
            return weight
        difference = (self._shifted(self._around, step) - self._pixels).square().sum(0)
        return weight * torch.exp(-difference / (2 * self._contrast**2))

    def _padded(self, values: Tensor) -> Tensor:
        return functional.pad(values, [self._reach] * 4)

    def _shifted(self, padded: Tensor, step: tuple[int, int]) -> Tensor:
        height, width = self._pixels.shape[-2:]
        return padded[..., self._reach + step[0] :, self._reach + step[1] :][..., :height, :width]
