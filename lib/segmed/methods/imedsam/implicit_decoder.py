"""Masks as a function of position: a coarse network everywhere, a fine one where the coarse one is uncertain.

Source: Wei et al., I-MedSAM: Implicit Medical Image Segmentation with Segment Anything (2024). Interpolation
of coarse values on a grid of their own, and a finer network at the uncertain pixels of the output: Kirillov
et al., PointRend: Image Segmentation as Rendering (CVPR 2020). Uncertainty from dropout: Gal and Ghahramani,
Dropout as a Bayesian Approximation (ICML 2016).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segmed.methods.imedsam.coordinate_layer import CoordinateLayer, encode_positions
from segmed.methods.imedsam.point_dropout import draw_passes
from segmed.methods.imedsam.point_networks import (
    Layer,
    head_function,
    linear_function,
    network,
    split_network,
)

CHUNK, CHUNK_CPU = 65_536, 2_048  # points per pass through the networks; fewer on CPUs, to stay in the caches
_KEPT = 0.5  # share of the outputs that dropout keeps
_ENCODING = 63  # values of the published encoding of a position
_COARSE, _FINE, _HEAD, _FEATURE = (1024, 512), (256, 256), 128, 256


class Refined(NamedTuple):
    """The maps of n objects, (n, H, W) each.

    Attributes:
        coarse: Coarse logits, averaged over the passes.
        fine: The coarse logits with the fine ones at the uncertain pixels.
        uncertainty: Variance of the coarse probability over the passes, without gradient.
    """

    coarse: Tensor
    fine: Tensor
    uncertainty: Tensor


class ImplicitDecoder(nn.Module):
    """A decoder from feature maps to masks of any size.

    Dropout acts on the last hidden layer of the coarse network. Each pass draws one set of units for all
    points and classes, that is, one function from the posterior. A pass is therefore a product with masked
    weights, does not depend on the batching of points, and is the same function at every output size.

    Args:
        source: Channels of the feature maps.
        position: Channels of the positional maps.
        classes: Number of heads; object n belongs to class n modulo `classes`.
        share: Share of the pixels that the fine network refines.
        nodes: Side of the grid of coarse values, or None for a value at every pixel of the output.
        published: Whether to follow the authors' code: a constant third coordinate and their frequencies, 63
            values instead of 42, of which `reveal` shows more and more, and a dropout that draws every output
            of the coarse network at every point for itself. The pixels to refine are chosen for each object
            instead of the whole batch, so that objects do not depend on each other.
    """

    def __init__(
        self,
        source: int,
        position: int,
        classes: int,
        share: float,
        nodes: int | None,
        published: bool = False,
    ) -> None:
        super().__init__()
        self.classes, self.share, self.nodes, self.published = classes, share, nodes, published
        self._shown: int | None = None
        given = source + position + encode_positions(torch.zeros(1, 2), published).shape[-1]
        self.coarse_trunk = nn.Sequential(*network(given, *_COARSE))
        self.coarse_heads = nn.ModuleList(nn.Linear(_COARSE[-1], 1 + _FEATURE) for _ in range(classes))
        self.fine_trunk = nn.Sequential(*network(_FEATURE + given, *_FINE))
        self.fine_heads = nn.ModuleList(
            nn.Sequential(*network(_FINE[-1], _HEAD), nn.Linear(_HEAD, 1)) for _ in range(classes)
        )

    def forward(
        self,
        source: Tensor,
        position: Tensor,
        size: tuple[int, int],
        passes: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float32,
        regions: Tensor | None = None,
    ) -> Refined:
        """Decode n objects, a multiple of the number of classes.

        Args:
            source: Feature maps (n, source, h, w).
            position: Dense positional encoding (1, position, t, t).
            size: Rows and columns (H, W) of the output.
            passes: Number of sets of units that are drawn.
            generator: A random generator on the CPU for the draws; None for PyTorch's global one.
            dtype: Number format of the products after the first layers, outside of training.
            regions: First row and column and last ones, exclusive, (n, 4) in pixels of the output, where
                pixels may be refined; their share is that of the region. None for everywhere.
        """
        # 1. Coarse logits z_p of all passes p on a grid, interpolated to the output; their mean is the coarse
        # mask. 2. Uncertainty u = Var_p sigmoid(z_p); the share of the pixels with the largest u is chosen
        # for each object. 3. At these pixels the fine network, on the coarse network's features and the same
        # input, replaces the logits.
        maps = [m.permute(0, 2, 3, 1).float().contiguous() for m in (source, position)]
        first, bias, rest = split_network(self.fine_trunk, dtype)
        from_features, first = first.split([_FEATURE, first.shape[1] - _FEATURE], 1)
        features: Tensor | None = None  # on the grid, after the fine network's first layer
        hidden: Tensor | None = None  # of every pixel, before it
        if self.published:
            coarse, hidden, doubt, uncertainty = self._published(maps, size, passes, generator, dtype)
        else:
            shape = size if self.nodes is None else (self.nodes, self.nodes)
            logits, features = self._coarse(maps, shape, passes, generator, from_features, dtype)
            logits = F.interpolate(logits, size, mode="bilinear", align_corners=False).flatten(2)
            coarse = logits.mean(1)
            probability = logits.detach().sigmoid()
            doubt = uncertainty = (probability - probability.mean(1, keepdim=True)).square().mean(1)
        if self.share == 0:
            return Refined(*(m.unflatten(1, size) for m in (coarse, coarse, uncertainty)))
        chosen, own = self._chosen(doubt, size, regions)
        layer = CoordinateLayer(
            first, bias, maps, size, chosen.shape[1], self.published, features, self._visible
        )
        heads = [head_function(head, dtype) for head in self.fine_heads]
        given = None
        if hidden is not None:
            given = F.linear(_rows(hidden, chosen), from_features.to(hidden.dtype)).float()
        fine = torch.cat([*self._parts(layer, chosen, rest, heads, given)], 1)[..., 0]
        # Objects with smaller regions have fewer pixels to refine than the others of the batch.
        kept = torch.where(own, fine, coarse.gather(1, chosen))
        return Refined(
            *(m.unflatten(1, size) for m in (coarse, coarse.scatter(1, chosen, kept), uncertainty))
        )

    def _chosen(self, doubt: Tensor, size: tuple[int, int], regions: Tensor | None) -> tuple[Tensor, Tensor]:
        """Pixels (n, P) to evaluate, in ascending order, and whether each is one of the object's share."""
        if regions is None:
            count = max(1, round(self.share * doubt.shape[1]))
            # Neighbouring pixels share rows of the table.
            chosen = doubt.topk(count, dim=1, sorted=False).indices.sort().values
            return chosen, torch.ones_like(chosen, dtype=torch.bool)
        top, left, bottom, right = regions.to(doubt.device).T[..., None]
        row, column = (torch.arange(n, device=doubt.device) for n in size)
        inside = ((row >= top) & (row < bottom))[:, :, None] & ((column >= left) & (column < right))[:, None]
        counts = (self.share * inside.flatten(1).sum(1, keepdim=True)).round().clamp(min=1)
        ranked = doubt.masked_fill(~inside.flatten(1), -1).topk(int(counts.max()), dim=1).indices
        chosen, order = ranked.sort()
        return chosen, order < counts

    def _coarse(
        self,
        maps: list[Tensor],
        shape: tuple[int, int],
        passes: int,
        generator: torch.Generator | None,
        from_features: Tensor,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        """Coarse logits (n, passes, *shape), and coarse features after the fine network's first layer.

        A coarse head computes W h + b from the hidden layer h, of which row 0 is the logit and the other rows
        are the features. Between the features and the fine network's first layer W_f lies only interpolation,
        which is linear, so that both are joined: W_f (W[1:] h + b[1:]). Dropout masks the columns of W, with
        its mean over the passes for the features.
        """
        device = maps[0].device
        kept = torch.bernoulli(torch.full((passes, _COARSE[-1]), _KEPT, device="cpu"), generator=generator)
        kept = kept.to(device) / _KEPT
        first, bias, rest = split_network(self.coarse_trunk, dtype)
        heads: list[Layer] = []
        for head in self.coarse_heads:
            weight, offset = head.parameters()
            weights = torch.cat([weight[:1] * kept, from_features @ (weight[1:] * kept.mean(0))])
            offsets = torch.cat([offset[:1].expand(passes), from_features @ offset[1:]])
            heads.append(linear_function(weights, offsets, dtype))
        count = shape[0] * shape[1]
        layer = CoordinateLayer(first, bias, maps, shape, count)
        out = torch.cat([*self._parts(layer, torch.arange(count, device=device)[None], rest, heads)], 1)
        logits, features = out.unflatten(1, shape).split([passes, out.shape[-1] - passes], -1)
        return logits.permute(0, 3, 1, 2).contiguous(), features.contiguous()

    def reveal(self, share: float) -> None:
        """Show a share of the position's encoding in training, and three values more, as published."""
        self._shown = int(share * _ENCODING) + 3

    @property
    def _visible(self) -> int | None:
        return self._shown if self.training and self.published else None

    def _published(
        self,
        maps: list[Tensor],
        size: tuple[int, int],
        passes: int,
        generator: torch.Generator | None,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The coarse network with the authors' dropout.

        Returns:
            The logits (n, P) of the last pass; its features (n, P, C); the variance (n, P) over the passes,
            averaged over logit and features, by which pixels are chosen; and that of the probability.
        """
        count = size[0] * size[1]
        first, bias, rest = split_network(self.coarse_trunk, dtype)
        heads: list[Layer] = []
        for head in self.coarse_heads:
            weight, offset = head.parameters()
            heads.append(linear_function(weight, offset, dtype))
        layer = CoordinateLayer(first, bias, maps, size, count, True, shown=self._visible)
        parts = []
        for out in self._parts(layer, torch.arange(count, device=bias.device)[None], rest, heads):
            for part in out.split(max(1, CHUNK // len(out)), 1):
                parts.append(self._dropped(part, passes, generator, dtype))
        coarse, hidden, doubt, uncertainty = (torch.cat(p, 1) for p in zip(*parts, strict=True))
        return coarse, hidden, doubt, uncertainty

    def _dropped(
        self, out: Tensor, passes: int, generator: torch.Generator | None, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What `_published` returns, of outputs (n, P, 1 + C) before the dropout."""
        # Outside of training objects share their draws, so that none depends on its company.
        draw = draw_passes((len(out) if self.training else 1, *out.shape[1:]), passes, generator)
        kept, last = (t.to(out.device) for t in draw)
        # With P passes, of which k keep an output x, it is 2 x in k and 0 in P − k of them: its variance is
        # 4 x² k (P − k) / P², or without bias 4 x² k (P − k) / (P (P − 1)).
        kept = kept.float()
        pairs = kept * (passes - kept)
        with torch.no_grad():
            doubt = torch.linalg.vecdot(out.square(), pairs.expand_as(out)) * (
                4 / (passes * (passes - 1) * out.shape[-1])
            )
            spread = (out[..., 0] / _KEPT).sigmoid() - 0.5
            uncertainty = spread.square() * pairs[..., 0] / passes**2
        seen = out * (last / _KEPT)
        return seen[..., 0], seen[..., 1:].to(dtype), doubt, uncertainty

    def _parts(
        self,
        layer: CoordinateLayer,
        pixels: Tensor,
        rest: Layer,
        heads: list[Layer],
        given: Tensor | None = None,
    ) -> Iterator[Tensor]:
        """Evaluate a network at pixels (n or 1, P) by the head of each object's class: (n, p, channels) each.

        What `given` (n, P, C) contains is added to its first layer.
        """
        # In training all points go through the networks at once, for the batch statistics.
        chunk = CHUNK_CPU if pixels.device.type == "cpu" else CHUNK
        step = pixels.shape[1] if self.training else max(1, chunk // layer.objects)
        for start in range(0, pixels.shape[1], step):
            part = pixels[:, start : start + step]
            before = layer(part)
            if given is not None:
                before = before + given[:, start : start + step].flatten(0, 1)
            hidden = rest(before).unflatten(0, (-1, len(heads), part.shape[1]))
            values = [head(hidden[:, c].flatten(0, 1)).float() for c, head in enumerate(heads)]
            yield torch.stack([v.unflatten(0, (-1, part.shape[1])) for v in values], 1).flatten(0, 1)


def _rows(maps: Tensor, pixels: Tensor) -> Tensor:
    """Rows of maps (n, P, C) at pixels (n, p): (n, p, C)."""
    return maps[torch.arange(len(maps), device=maps.device)[:, None], pixels]
