"""Masks as a function of position: a coarse network everywhere, a fine one where the coarse one is unsure.

Source: Wei et al., I-MedSAM: Implicit Medical Image Segmentation with Segment Anything (2024). Coarse values on a grid
of their own, interpolated, with the finer network at the uncertain pixels of the output: Kirillov et al., PointRend:
Image Segmentation as Rendering (CVPR 2020). Uncertainty from dropout: Gal and Ghahramani, Dropout as a Bayesian
Approximation (ICML 2016).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHUNK = 65_536  # points that pass through the networks together, outside of training
_OCTAVES = 10
_DROPPED = 0.5
_COARSE, _FINE, _HEAD, _FEATURE = (1024, 512), (256, 256), 128, 256


class Refined(NamedTuple):
    """Maps of n objects, (n, H, W) each.

    Attributes:
        coarse: logits, the mean of the passes.
        fine: the same with the fine logits in their places.
        uncertainty: variance of the probability over the passes, without gradient.
    """

    coarse: Tensor
    fine: Tensor
    uncertainty: Tensor


class ImplicitDecoder(nn.Module):
    """From a decoder's feature maps to masks of any size.

    Dropout acts on the last hidden layer of the coarse network. Each pass draws one set of units for all points, that
    is one function out of the posterior, so that a pass is a product with masked weights, does not depend on how points
    are batched, and is the same function at every output size.

    Args:
        source: channels of the feature maps.
        position: channels of the positional maps.
        classes: heads; each object uses that of its class.
        share: of the pixels, which the fine network refines.
        nodes: side of the grid of coarse values, or None for a value at every pixel of the output.
        published: encode a constant third coordinate and the authors' frequencies, 63 values instead of 42.
    """

    def __init__(
        self, source: int, position: int, classes: int, share: float, nodes: int | None, published: bool = False
    ) -> None:
        super().__init__()
        self.share, self.nodes, self.published = share, nodes, published
        given = source + position + encode_positions(torch.zeros(1, 2), published).shape[-1]
        self.coarse_trunk = nn.Sequential(*_layers(given, *_COARSE))
        self.coarse_heads = nn.ModuleList(nn.Linear(_COARSE[-1], 1 + _FEATURE) for _ in range(classes))
        self.fine_trunk = nn.Sequential(*_layers(_FEATURE + given, *_FINE))
        self.fine_heads = nn.ModuleList(
            nn.Sequential(*_layers(_FINE[-1], _HEAD), nn.Linear(_HEAD, 1)) for _ in range(classes)
        )

    def forward(
        self,
        source: Tensor,
        position: Tensor,
        size: tuple[int, int],
        passes: int,
        generator: torch.Generator | None = None,
        object_class: int = 0,
    ) -> Refined:
        """Decode n objects of one class.

        Args:
            source: (n, source, h, w) feature maps.
            position: (1, position, t, t) dense positional encoding.
            size: (H, W) of the output.
            passes: how many sets of units are drawn.
            generator: draws them, on the CPU; None takes PyTorch's global one.
            object_class: which head.
        """
        maps = tuple(m.permute(0, 2, 3, 1).float().contiguous() for m in (source, position))
        shape = size if self.nodes is None else (self.nodes, self.nodes)
        logits, features = self._coarse(maps, shape, passes, generator, object_class)
        logits = F.interpolate(logits, size, mode="bilinear", align_corners=False).flatten(2)
        coarse = logits.mean(1)
        probability = logits.detach().sigmoid()
        uncertainty = (probability - probability.mean(1, keepdim=True)).square().mean(1)
        count = max(1, round(self.share * uncertainty.shape[1]))
        chosen = uncertainty.topk(count, dim=1, sorted=False).indices
        places = pixel_centres(size, source.device)[0, chosen]
        fine = self._fine((features, *maps), places, object_class)
        return Refined(*(m.unflatten(1, size) for m in (coarse, coarse.scatter(1, chosen, fine), uncertainty)))

    def _coarse(
        self,
        maps: tuple[Tensor, ...],
        shape: tuple[int, int],
        passes: int,
        generator: torch.Generator | None,
        object_class: int,
    ) -> tuple[Tensor, Tensor]:
        """Logits of each pass (n, passes, *shape), and features for the fine network (n, *shape, 256)."""
        device = maps[0].device
        weight, bias = self.coarse_heads[object_class].parameters()
        kept = torch.bernoulli(torch.full((passes, _COARSE[-1]), 1 - _DROPPED, device="cpu"), generator=generator)
        kept = kept.to(device) / (1 - _DROPPED)
        weights = torch.cat([weight[:1] * kept, weight[1:] * kept.mean(0)])
        biases = torch.cat([bias[:1].expand(passes), bias[1:]])
        places = pixel_centres(shape, device)
        parts = []
        for part in places.split(self._step(len(maps[0])), 1):
            hidden = self._hidden(self.coarse_trunk, maps, part)
            parts.append(F.linear(hidden, weights, biases).float().unflatten(0, (-1, part.shape[1])))
        logits, features = torch.cat(parts, 1).unflatten(1, shape).split([passes, _FEATURE], -1)
        return logits.permute(0, 3, 1, 2).contiguous(), features

    def _fine(self, maps: tuple[Tensor, ...], places: Tensor, object_class: int) -> Tensor:
        """Logits (n, P) at places (n, P, 2)."""
        parts = []
        for part in places.split(self._step(len(places)), 1):
            hidden = self._hidden(self.fine_trunk, maps, part)
            parts.append(self.fine_heads[object_class](hidden).float().unflatten(0, part.shape[:2])[..., 0])
        return torch.cat(parts, 1)

    def _hidden(self, trunk: nn.Sequential, maps: tuple[Tensor, ...], places: Tensor) -> Tensor:
        """A trunk on what maps (n or 1, h, w, C) hold at places (n or 1, P, 2), and on the places: (n P, channels).

        Its first layer and the interpolation are both linear, so that of the two the one with fewer rows comes first.
        """
        weight, bias = trunk[0].parameters()
        encoded = encode_positions(places, self.published)
        *weights, last = weight.split([v.shape[-1] for v in (*maps, encoded)], 1)
        total = F.linear(encoded, last, bias).float()
        for values, weight in zip(maps, weights, strict=True):
            if values.shape[1] * values.shape[2] < places.shape[1]:
                total = total + sample(F.linear(values, weight), places)
            else:
                total = total + F.linear(sample(values, places), weight).float()
        return trunk[1:](total.flatten(0, 1))

    def _step(self, objects: int) -> int:
        # batch statistics are those of all points
        return torch.iinfo(torch.int64).max if self.training else max(1, CHUNK // objects)


def pixel_centres(shape: tuple[int, int], device: torch.device | None = None) -> Tensor:
    """(1, H W, 2) x and y of the pixels of a map whose outer edges are at -1 and 1."""
    y, x = (torch.arange(1, 2 * n, 2, device=device) / n - 1 for n in shape)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).flatten(0, 1)[None]


def sample(maps: Tensor, places: Tensor) -> Tensor:
    """Bilinear values (n, P, C) of maps (n, h, w, C) at places (n, P, 2) within [-1, 1]; either n may be 1.

    The same as `grid_sample` with its border repeated, but several times faster on CPUs: each point is a weighted sum
    of four rows of a table.
    """
    height, width = maps.shape[1:3]
    last = places.new_tensor([width - 1, height - 1])
    xy = ((places + 1) * (last + 1) / 2 - 0.5).clamp(min=0).minimum(last)
    low = xy.floor()
    (x0, y0), (x1, y1) = (corner.long().unbind(-1) for corner in (low, (low + 1).minimum(last)))
    dx, dy = (xy - low).unbind(-1)
    rows = torch.stack([y0 * width + x0, y0 * width + x1, y1 * width + x0, y1 * width + x1], -1)
    shares = torch.stack([(1 - dx) * (1 - dy), dx * (1 - dy), (1 - dx) * dy, dx * dy], -1)
    rows = rows + height * width * torch.arange(len(maps), device=rows.device)[:, None, None]
    shares = shares.expand_as(rows).flatten(0, 1)
    values = F.embedding_bag(rows.flatten(0, 1), maps.float().flatten(0, 2), per_sample_weights=shares, mode="sum")
    return values.unflatten(0, (len(rows), -1))


def encode_positions(places: Tensor, published: bool = False) -> Tensor:
    """Places (..., 2) as (x, y) in [-1, 1] with their sines and cosines: (..., 42), or (..., 63) as published.

    The paper's frequencies are π 2^0 … π 2^9. The authors' code has 2 π 2^f with f in ten even steps from 0 to 10, and
    a third coordinate, the depth, which is -1 throughout.
    """
    if published:
        places = F.pad(places, (0, 1), value=-1.0)
    last = _OCTAVES if published else _OCTAVES - 1
    octaves = torch.linspace(0, last, _OCTAVES, device=places.device)
    angles = (places[..., None] * (1 + published) * math.pi * 2**octaves).flatten(-2)
    return torch.cat([places, angles.sin(), angles.cos()], -1)


def _layers(before: int, *widths: int) -> list[nn.Module]:
    """Linear, batch norm and ReLU per width."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(before, width), nn.BatchNorm1d(width), nn.ReLU(inplace=True)]
        before = width
    return layers
