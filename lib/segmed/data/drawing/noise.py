"""Band-limited noise and random numbers, batched, on any device, from one generator."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass
class Dice:
    """Random numbers of one stream.

    Attributes:
        generator: the stream; its device is where everything is drawn.
    """

    generator: torch.Generator

    @property
    def device(self) -> torch.device:
        return self.generator.device

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return torch.rand(shape, generator=self.generator, device=self.device) * (high - low) + low

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, device=self.device)

    def integer(self, *shape: int, low: int, high: int) -> Tensor:
        """Whole numbers from `low` to `high`, both possible."""
        return torch.randint(low, high + 1, shape, generator=self.generator, device=self.device)

    def chance(self, *shape: int, share: float) -> Tensor:
        return self.uniform(*shape) < share


def smooth_noise(dice: Dice, count: int, channels: int, size: int, cells: int) -> Tensor:
    """Noise with structures of about size / cells px, zero mean and unit variance: (count, channels, size, size)."""
    cells = max(2, min(cells, size))
    field = F.interpolate(dice.normal(count, channels, cells, cells), size, mode="bicubic", align_corners=False)
    sd, mean = torch.std_mean(field, (-2, -1), keepdim=True)
    return (field - mean) / sd.clamp(min=1e-6)


def texture(dice: Dice, count: int, size: int) -> Tensor:
    """A random mixture of coarse, middle and fine noise, unit variance: (count, size, size)."""
    scales = (4, max(5, size // 12), max(6, size // 3))
    octaves = torch.cat([smooth_noise(dice, count, 1, size, cells) for cells in scales], 1)
    weights = dice.uniform(count, len(scales), 1, 1) ** 2
    return (octaves * weights).sum(1) / weights.square().sum(1).sqrt().clamp(min=1e-6)


def coordinates(count: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """x and y in [0, 1] of pixel centres, (count, size, size) each."""
    axis = (torch.arange(size, device=device) + 0.5) / size
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return x.expand(count, -1, -1), y.expand(count, -1, -1)
