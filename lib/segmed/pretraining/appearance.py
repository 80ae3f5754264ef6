"""Random changes of the appearance of windows, without changes of geometry.

The functions work on batches (B, 3, H, W) in [0, 1] with a numpy generator, so that a repeated step gives the
same.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_GREY = (0.299, 0.587, 0.114)


def vary_appearance(images: Tensor, valid: Tensor, rng: np.random.Generator) -> Tensor:
    """Vary the appearance of windows at random.

    The changes are: conversion to grey, permuted channels, inversion, windowing, gamma, contrast and
    brightness, bias field, blur, coarse pixels, noise and cut-outs, each on a random share of the windows.

    Args:
        images: Windows (B, 3, H, W) in [0, 1].
        valid: Boolean (B, H, W), true for pixels on the slice; others stay 0.
        rng: A random generator.

    Returns:
        The changed windows (B, 3, H, W) in [0, 1].
    """
    count, _, *sides = images.shape
    size = min(sides)

    def share_of_windows(share: float) -> Tensor:
        return torch.from_numpy(rng.random(count) < share).view(-1, 1, 1, 1)

    def uniform(low: float, high: float, shape: tuple[int, ...] = (1, 1, 1)) -> Tensor:
        return torch.from_numpy(rng.uniform(low, high, (count, *shape)).astype(np.float32))

    grey = (images * images.new_tensor(_GREY).view(1, 3, 1, 1)).sum(1, keepdim=True).expand(-1, 3, -1, -1)
    x = torch.where(share_of_windows(0.25), grey, images)
    x = torch.where(share_of_windows(0.1), x[:, torch.from_numpy(rng.permutation(3))], x)
    x = torch.where(share_of_windows(0.12), 1 - x, x)
    low, high = uniform(0.0, 0.25), uniform(0.7, 1.0)
    x = torch.where(share_of_windows(0.3), ((x - low) / (high - low)).clamp(0, 1), x)
    x = torch.where(share_of_windows(0.4), x.clamp(min=1e-4) ** torch.exp(uniform(-0.7, 0.7)), x)
    x = torch.where(share_of_windows(0.3), x * uniform(0.6, 1.2) + uniform(-0.15, 0.15), x)
    x = torch.where(share_of_windows(0.15), x * uniform(0.8, 1.2, (3, 1, 1)), x)
    field = F.interpolate(uniform(-0.5, 0.5, (1, 3, 3)), size=sides, mode="bicubic", align_corners=False)
    x = torch.where(share_of_windows(0.25), x * torch.exp(field), x)
    soft = F.avg_pool2d(F.avg_pool2d(x, 3, 1, 1, count_include_pad=False), 3, 1, 1, count_include_pad=False)
    x = torch.where(share_of_windows(0.2), soft, x)
    factor = int(rng.integers(2, 5))
    coarse = F.interpolate(F.avg_pool2d(x, factor), size=sides, mode="bilinear", align_corners=False)
    x = torch.where(share_of_windows(0.15), coarse, x)
    noise = torch.from_numpy(rng.standard_normal((count, 1, *sides)).astype(np.float32))
    x = torch.where(share_of_windows(0.25), x + noise * uniform(0.01, 0.09), x)
    x = torch.where(share_of_windows(0.08), x * (1 + noise * uniform(0.05, 0.35)), x)
    for n in range(count):
        if rng.random() < 0.08:
            side = rng.integers(size // 10, size // 4, 2)
            row, column = rng.integers(0, np.array(sides) - side)
            x[n, :, row : row + side[0], column : column + side[1]] = float(rng.random())
    return x.clamp(0, 1) * valid[:, None]
