"""The mapping between a slice and the square input of a model, with all scaling of coordinates."""

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
        height: Rows of the slice.
        width: Columns of the slice.
        size: Side of the model input in px.
        keep_aspect: Whether to scale both axes alike and pad at the bottom and right (plain SAM) rather than
            to stretch (MedSAM).
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
        """Map pixels of the slice, (..., 2) as (x, y), to pixels of the model input."""
        rows, columns = self.content
        return np.asarray(xy, np.float32) * np.array([columns / self.width, rows / self.height], np.float32)

    def to_slice(self, xy: np.ndarray) -> np.ndarray:
        """Map pixels of the model input to pixels of the slice, the inverse of `to_model`."""
        rows, columns = self.content
        return np.asarray(xy, np.float32) * np.array([self.width / columns, self.height / rows], np.float32)

    def fit(self, image: Tensor, mode: str, fill: Tensor | float = 0.0) -> Tensor:
        """Resample a slice into the model input, (C, height, width) → (C, size, size).

        Args:
            image: The slice, of floating point.
            mode: The interpolation, see `resample`.
            fill: The value of the padding, one for all channels or (C, 1, 1).
        """
        return self.pad(self.resample(image, mode), fill)

    def resample(self, image: Tensor, mode: str) -> Tensor:
        """Resample a slice to its size within the model input.

        Args:
            image: The slice, (C, height, width), of floating point.
            mode: `bicubic` or `bilinear`, both with anti-aliasing, or `area`, the mean over what a pixel
                covers, or `nearest`.

        Returns:
            The slice, (C, rows, columns) with the numbers of `content`.
        """
        rows, columns = self.content
        if mode == "area":
            return _coverage(self.height, rows) @ image @ _coverage(self.width, columns).T
        if mode == "nearest":
            return F.interpolate(image[None], (rows, columns), mode=mode)[0]
        return F.interpolate(image[None], (rows, columns), mode=mode, align_corners=False, antialias=True)[0]

    def pad(self, small: Tensor, fill: Tensor | float = 0.0) -> Tensor:
        """Place a resampled slice (C, rows, columns) into the model input (C, size, size).

        Args:
            small: The slice.
            fill: The value of the padding, one for all channels or (C, 1, 1).
        """
        rows, columns = self.content
        if (rows, columns) == (self.size, self.size):
            return small
        out = torch.zeros((small.shape[0], self.size, self.size), dtype=small.dtype) + fill
        out[:, :rows, :columns] = small
        return out

    def restore(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """Resample maps that cover the model input, at any resolution, to an output without padding.

        Args:
            maps: Maps (B, K, h, w).
            size: Rows and columns (H, W) of the output.

        Returns:
            The maps, interpolated bilinearly, (B, K, H, W).
        """
        if self.keep_aspect and self.content != (self.size, self.size):
            rows, columns = self.content
            maps = F.interpolate(maps, (self.size, self.size), mode="bilinear", align_corners=False)
            maps = maps[..., :rows, :columns]
        return F.interpolate(maps, size, mode="bilinear", align_corners=False)


def _coverage(old: int, new: int) -> Tensor:
    """The share that each of `old` pixels has in each of `new` ones along an axis, (new, old)."""
    edges = torch.arange(new + 1, dtype=torch.float64) * (old / new)
    pixel = torch.arange(old, dtype=torch.float64)
    begin = torch.maximum(edges[:-1, None], pixel)
    end = torch.minimum(edges[1:, None], pixel + 1)
    return ((end - begin).clamp(min=0) * (new / old)).float()
