"""A conditional random field that draws a mask to the edges of the picture, by mean-field updates in a local window.

Sources: Krähenbühl and Koltun, Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials, 2011 (energy
and updates); the sums over all pairs are cut to windows around each pixel, the wide one with steps between its taps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

_NEAR, _FAR = 5, 10  # taps to each side of both windows
_KEPT_BYTES = 2**28  # weights of larger pictures are computed anew in each update


@dataclass(frozen=True)
class CrfConfig:
    """Two labels; widths in px of a picture with sides of 500 px, scaled for others.

    Attributes:
        smooth_width: of the kernel that only knows distance.
        smooth_weight: its strength.
        edge_width: of the kernel that knows distance and grey value.
        edge_contrast: difference of grey values (of 255) that counts as an edge.
        edge_weight: its strength.
        iterations: mean-field updates.
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
            raise ValueError(f"{self} is not usable: widths and iterations must be above 0, weights 0 or more.")


@torch.inference_mode()
def crf(image: np.ndarray, probability: np.ndarray, config: CrfConfig | None = None) -> np.ndarray:
    """Sharpen a mask.

    Args:
        image: (H, W) or (H, W, 3) uint8.
        probability: (H, W) of the object.
        config: strengths and widths.

    Returns:
        (H, W) probability of the object.
    """
    config = config or CrfConfig()
    pixels = torch.from_numpy(np.ascontiguousarray(image)).float().reshape(*image.shape[:2], -1).permute(2, 0, 1)
    p = torch.from_numpy(probability.astype(np.float32)).clamp(1e-6, 1 - 1e-6)
    unary = p.logit()
    step = max(round(config.edge_width * max(image.shape[:2]) / 500 / _FAR), 1)
    near = _Window(pixels, _NEAR, 1, config.smooth_width, None)
    far = _Window(pixels, _FAR, step, config.edge_width * max(image.shape[:2]) / 500, config.edge_contrast)
    for _ in range(config.iterations):
        # of two labels, the messages for the other are one minus these
        pull = config.smooth_weight * (2 * near.mean(p) - 1) + config.edge_weight * (2 * far.mean(p) - 1)
        p = torch.sigmoid(unary + pull)
    return p.numpy()


class _Window:
    """Weighted means over the neighbours of each pixel, itself left out."""

    def __init__(self, pixels: Tensor, taps: int, step: int, width: float, contrast: float | None) -> None:
        self._pixels, self._width, self._contrast = pixels, width, contrast
        self._reach = taps * step
        near = range(-self._reach, self._reach + 1, step)
        self._steps = [(dy, dx) for dy in near for dx in near if (dy, dx) != (0, 0)]
        self._inside, self._around = self._padded(torch.ones_like(pixels[0])), self._padded(pixels)
        small = len(self._steps) * pixels[0].nbytes <= _KEPT_BYTES
        self._kept = list(map(self._weight, self._steps)) if small else None

    def mean(self, values: Tensor) -> Tensor:
        """(H, W) weighted mean of the neighbours' values."""
        padded = self._padded(values)
        total, weights = torch.zeros_like(values), torch.full_like(values, 1e-12)
        for step, weight in zip(self._steps, self._kept or map(self._weight, self._steps), strict=True):
            total.addcmul_(weight, self._shifted(padded, step))
            weights += weight
        return total / weights

    def _weight(self, step: tuple[int, int]) -> Tensor:
        apart = (step[0] ** 2 + step[1] ** 2) / (2 * self._width**2)
        weight = self._shifted(self._inside, step) * math.exp(-apart)
        if self._contrast is None:
            return weight
        differs = (self._shifted(self._around, step) - self._pixels).square().sum(0)
        return weight * torch.exp(-differs / (2 * self._contrast**2))

    def _padded(self, values: Tensor) -> Tensor:
        return functional.pad(values, [self._reach] * 4)

    def _shifted(self, padded: Tensor, step: tuple[int, int]) -> Tensor:
        height, width = self._pixels.shape[-2:]
        return padded[..., self._reach + step[0] :, self._reach + step[1] :][..., :height, :width]
