"""The first layer of a network on interpolated maps and positions, without building its input.

Source of the encoding: Wei et al., I-MedSAM: Implicit Medical Image Segmentation with Segment Anything
(2024).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_OCTAVES = 10  # frequencies per coordinate
_SUMMED = 24  # multiply-adds of a matrix product that take as long as summing four rows, per channel


class CoordinateLayer:
    """A linear layer on interpolated maps and encoded positions, as sums of rows of one table.

    The layer computes W_m interpolate(m) + W_p encode(x, y) + b for each map m. Bilinear interpolation is
    linear as well, so that W_m can be applied to the map's cells first: then the result is a weighted sum of
    four rows of a table. This pays for maps with many channels and few cells; for others the interpolation
    comes first. No value of the encoding depends on both x and y, so that W_p encode(x, y) is the sum of one
    row per column of the grid and one per row of the grid.

    Args:
        weight: Weights (C, channels of all maps + those of the encoding), in this order.
        bias: Bias (C,).
        maps: Maps (n or 1, h, w, channels), float32, each with the extent of the grid.
        shape: Rows and columns (H, W) of the grid.
        count: Number of pixels per object that will be evaluated.
        published: See `encode_positions`.
        done: A map (n, h, w, C) to which its part of the layer has already been applied, or None.
        shown: Number of values of the encoding that count, from the first; None for all.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        maps: Sequence[Tensor],
        shape: tuple[int, int],
        count: int,
        published: bool = False,
        done: Tensor | None = None,
        shown: int | None = None,
    ) -> None:
        channels = [m.shape[-1] for m in maps]
        *weights, last = weight.split([*channels, weight.shape[1] - sum(channels)], 1)
        if shown is not None:
            last = last * (torch.arange(last.shape[1], device=last.device) < shown)
        self.shape = shape
        self.objects = max(len(m) for m in maps)
        y, x = (torch.arange(1, 2 * n, 2, device=bias.device) / n - 1 for n in shape)
        # Encodings of the columns at y = 0, the rows at x = 0, and the origin, which would otherwise count
        # twice.
        places = torch.cat([F.pad(x[:, None], (0, 1)), F.pad(y[:, None], (1, 0, 0, 1))])
        columns, rows, origin = F.linear(encode_positions(places, published), last).split([len(x), len(y), 1])
        table = [columns + bias, rows - origin]
        self._tabled: list[tuple[int, _Corners]] = []
        self._wide: list[tuple[Tensor, Tensor, _Corners]] = []
        start = sum(shape)
        for values, part in [*zip(maps, weights, strict=True), *([] if done is None else [(done, None)])]:
            objects, height, width, size = values.shape
            corners = _Corners(shape, (objects, height, width), bias.device)
            if part is None or size * (count - height * width) > _SUMMED * count:
                table.append((values if part is None else F.linear(values, part)).flatten(0, 2))
                self._tabled.append((start, corners))
                start += objects * height * width
            else:
                self._wide.append((values.flatten(0, 2), part, corners))
        self._table = torch.cat([t.float() for t in table])

    def __call__(self, pixels: Tensor) -> Tensor:
        """Evaluate the layer at pixels (n or 1, P), numbered along rows: (n P, C)."""
        y, x = pixels.div(self.shape[1], rounding_mode="floor"), pixels.remainder(self.shape[1])
        rows = [torch.stack([x, y + self.shape[1]], -1)]
        shares = [torch.ones_like(rows[0], dtype=torch.float32)]
        for start, corners in self._tabled:
            four, share = corners(y, x)
            rows.append(four + start)
            shares.append(share)
        total = _sums(self._table, rows, shares, self.objects)
        for values, weight, corners in self._wide:
            four, share = corners(y, x)
            total.addmm_(_sums(values, [four], [share], self.objects), weight.T)
        return total


class _Corners:
    """Bilinear interpolation of flattened maps (objects, h, w) at pixels of a grid (H, W).

    Beyond the outer centres the outermost cell is repeated, as in `interpolate` without aligned corners.
    """

    def __init__(self, shape: tuple[int, int], extent: tuple[int, int, int], device: torch.device) -> None:
        objects, *cells = extent
        self._first = cells[0] * cells[1] * torch.arange(objects, device=device)[:, None]
        self._axes = []
        for side, count, step in zip(shape, cells, (cells[1], 1), strict=True):
            place = ((torch.arange(side, device=device) + 0.5) * (count / side) - 0.5).clamp(0, count - 1)
            low = place.long()
            self._axes.append((low * step, (low + 1).clamp(max=count - 1) * step, place - low))

    def __call__(self, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Table rows (objects, P, 4) of the cells around pixels (n or 1, P), and their bilinear weights."""
        (y0, y1, dy), (x0, x1, dx) = (
            [t[at] for t in axis] for axis, at in zip(self._axes, (y, x), strict=True)
        )
        y0, y1 = y0 + self._first, y1 + self._first
        rows = torch.stack([y0 + x0, y0 + x1, y1 + x0, y1 + x1], -1)
        return rows, torch.stack([(1 - dx) * (1 - dy), dx * (1 - dy), (1 - dx) * dy, dx * dy], -1)


def _sums(table: Tensor, rows: Sequence[Tensor], shares: Sequence[Tensor], objects: int) -> Tensor:
    """Weighted sums of rows of a table: rows and shares (objects or 1, P, k) each → (objects P, C)."""
    chosen, weights = (
        torch.cat([p.expand(objects, -1, -1) for p in parts], -1).flatten(0, 1) for parts in (rows, shares)
    )
    return F.embedding_bag(chosen, table, per_sample_weights=weights, mode="sum")


def encode_positions(places: Tensor, published: bool = False) -> Tensor:
    """Encode positions (..., 2), x and y in [-1, 1], by sines and cosines: (..., 42), or 63 as published.

    The paper's frequencies are π 2^0 … π 2^9. The authors' code has 2 π 2^f with f in ten even steps from 0
    to 10, and a third coordinate, the depth, which is -1 throughout.
    """
    if published:
        places = F.pad(places, (0, 1), value=-1.0)
    last = _OCTAVES if published else _OCTAVES - 1
    octaves = torch.linspace(0, last, _OCTAVES, device=places.device)
    angles = (places[..., None] * (1 + published) * math.pi * 2**octaves).flatten(-2)
    return torch.cat([places, angles.sin(), angles.cos()], -1)
