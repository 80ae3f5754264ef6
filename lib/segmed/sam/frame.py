"""Between a slice and the square that a model sees: the only place that scales coordinates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Frame:
    """A slice of height × width pixels inside a model input of size × size pixels.

    Attributes:
        height: rows of the slice.
        width: columns of the slice.
        size: side of the model input in px.
        keep_aspect: scale both axes alike and pad bottom and right (plain SAM), else stretch (MedSAM).
    """

    height: int
    width: int
    size: int
    keep_aspect: bool = False

    @property
    def content(self) -> tuple[int, int]:
        """Rows and columns of the model input that hold the slice."""
        if not self.keep_aspect:
            return self.size, self.size
        scale = self.size / max(self.height, self.width)
        return max(1, int(self.height * scale + 0.5)), max(1, int(self.width * scale + 0.5))

    def to_model(self, xy: np.ndarray) -> np.ndarray:
        """Pixels of the slice, (..., 2) as (x, y), to pixels of the model input."""
        rows, columns = self.content
        return np.asarray(xy, np.float32) * np.array([columns / self.width, rows / self.height], np.float32)

    def to_slice(self, xy: np.ndarray) -> np.ndarray:
        """The inverse of `to_model`."""
        rows, columns = self.content
        return np.asarray(xy, np.float32) * np.array([self.width / columns, self.height / rows], np.float32)

    def fit(self, image: Tensor, mode: str, fill: Tensor | float = 0.0) -> Tensor:
        """Resample a slice with anti-aliasing into the model input.

        Args:
            image: (C, height, width) float.
            mode: `bicubic` or `bilinear`.
            fill: value of the padding, one for all or (C, 1, 1).

        Returns:
            (C, size, size)
        """
        rows, columns = self.content
        small = F.interpolate(image[None], (rows, columns), mode=mode, align_corners=False, antialias=True)[0]
        if (rows, columns) == (self.size, self.size):
            return small
        out = torch.zeros((image.shape[0], self.size, self.size), dtype=image.dtype) + fill
        out[:, :rows, :columns] = small
        return out

    def restore(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """Resample maps of the model input, at any resolution, to an output size; bilinear, padding cut off.

        Args:
            maps: (B, K, h, w)
            size: (H, W)
        """
        if self.keep_aspect and self.content != (self.size, self.size):
            rows, columns = self.content
            maps = F.interpolate(maps, (self.size, self.size), mode="bilinear", align_corners=False)
            maps = maps[..., :rows, :columns]
        return F.interpolate(maps, size, mode="bilinear", align_corners=False)
