"""Masks as a function of position: a coarse network everywhere, a fine one where the coarse one is uncertain.

Source: Wei et al., I-MedSAM: Implicit Medical Image Segmentation with Segment Anything (2024). Interpolation
of coarse values on a grid of their own, and a finer network at the uncertain pixels of the output: Kirillov
et al., PointRend: Image Segmentation as Rendering (CVPR 2020). Uncertainty from dropout: Gal and Ghahramani,
Dropout as a Bayesian Approximation (ICML 2016).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segmed.methods.imedsam.coordinate_layer import CoordinateLayer, encode_positions

Layer = Callable[[Tensor], Tensor]

CHUNK, CHUNK_CPU = 65_536, 2_048  # points per pass through the networks; fewer on CPUs, to stay in the caches
_DROPPED = 0.5  # dropout rate
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
        dtype: torch.dtype = torch.float32,
    ) -> Refined:
        """Decode n objects, a multiple of the number of classes.

        Args:
            source: Feature maps (n, source, h, w).
            position: Dense positional encoding (1, position, t, t).
            size: Rows and columns (H, W) of the output.
            passes: Number of sets of units that are drawn.
            generator: A random generator on the CPU for the draws; None for PyTorch's global one.
            dtype: Number format of the products after the first layers, outside of training.
        """
        # 1. Coarse logits z_p of all passes p on a grid, interpolated to the output; their mean is the coarse
        # mask. 2. Uncertainty u = Var_p sigmoid(z_p); the share of the pixels with the largest u is chosen
        # for each object. 3. At these pixels the fine network, on the coarse network's features and the same
        # input, replaces the logits.
        maps = [m.permute(0, 2, 3, 1).float().contiguous() for m in (source, position)]
        first, bias, rest = _split(self.fine_trunk, dtype)
        from_features, first = first.split([_FEATURE, first.shape[1] - _FEATURE], 1)
        shape = size if self.nodes is None else (self.nodes, self.nodes)
        if self.published:
            coarse, features, doubt, uncertainty = self._published(
                maps, size, passes, generator, from_features, dtype
            )
        else:
            logits, features = self._coarse(maps, shape, passes, generator, from_features, dtype)
            logits = F.interpolate(logits, size, mode="bilinear", align_corners=False).flatten(2)
            coarse = logits.mean(1)
            probability = logits.detach().sigmoid()
            doubt = uncertainty = (probability - probability.mean(1, keepdim=True)).square().mean(1)
        if self.share == 0:
            return Refined(*(m.unflatten(1, size) for m in (coarse, coarse, uncertainty)))
        count = max(1, round(self.share * uncertainty.shape[1]))
        # Neighbouring pixels share rows of the table.
        chosen = doubt.topk(count, dim=1, sorted=False).indices.sort().values
        layer = CoordinateLayer(first, bias, maps, size, count, self.published, features, self._visible)
        fine = self._in_parts(layer, chosen, rest, [_head(head, dtype) for head in self.fine_heads])[..., 0]
        return Refined(
            *(m.unflatten(1, size) for m in (coarse, coarse.scatter(1, chosen, fine), uncertainty))
        )

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
        kept = torch.bernoulli(
            torch.full((passes, _COARSE[-1]), 1 - _DROPPED, device="cpu"), generator=generator
        )
        kept = kept.to(device) / (1 - _DROPPED)
        first, bias, rest = _split(self.coarse_trunk, dtype)
        heads: list[Layer] = []
        for head in self.coarse_heads:
            weight, offset = head.parameters()
            weights = torch.cat([weight[:1] * kept, from_features @ (weight[1:] * kept.mean(0))])
            offsets = torch.cat([offset[:1].expand(passes), from_features @ offset[1:]])
            heads.append(_linear(weights, offsets, dtype))
        count = shape[0] * shape[1]
        layer = CoordinateLayer(first, bias, maps, shape, count)
        out = self._in_parts(layer, torch.arange(count, device=device)[None], rest, heads)
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
        from_features: Tensor,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The coarse network with the authors' dropout.

        Returns:
            The logits (n, P) of the last pass; its features after the fine network's first layer (n, H, W,
            C); the variance (n, P) over the passes, averaged over logit and features, by which pixels are
            chosen; and that of the probability.
        """
        count = size[0] * size[1]
        first, bias, rest = _split(self.coarse_trunk, dtype)
        heads: list[Layer] = []
        for head in self.coarse_heads:
            weight, offset = head.parameters()
            heads.append(_linear(weight, offset, dtype))
        layer = CoordinateLayer(first, bias, maps, size, count, True, shown=self._visible)
        out = self._in_parts(layer, torch.arange(count, device=bias.device)[None], rest, heads)
        parts = []
        for part in out.split(max(1, CHUNK // len(out)), 1):
            likely = torch.full(part.shape, 1 - _DROPPED)
            drawn = [torch.bernoulli(likely, generator=generator).to(part) for _ in range(passes)]
            values = torch.stack([part.detach() * mask / (1 - _DROPPED) for mask in drawn])
            last = part * drawn[-1] / (1 - _DROPPED)
            features = F.linear(last[..., 1:], from_features)
            variances = values.var(0).mean(-1), values[..., 0].sigmoid().var(0, unbiased=False)
            parts.append((last[..., 0], features, *variances))
        coarse, features, doubt, uncertainty = (torch.cat(p, 1) for p in zip(*parts, strict=True))
        return coarse, features.unflatten(1, size), doubt, uncertainty

    def _in_parts(self, layer: CoordinateLayer, pixels: Tensor, rest: Layer, heads: list[Layer]) -> Tensor:
        """Evaluate a network at pixels (n or 1, P) by the head of each object's class: (n, P, channels)."""
        parts = []
        # In training all points go through the networks at once, for the batch statistics.
        chunk = CHUNK_CPU if pixels.device.type == "cpu" else CHUNK
        step = pixels.shape[1] if self.training else max(1, chunk // layer.objects)
        for part in pixels.split(step, 1):
            hidden = rest(layer(part)).unflatten(0, (-1, len(heads), part.shape[1]))
            values = [head(hidden[:, c].flatten(0, 1)).float() for c, head in enumerate(heads)]
            parts.append(torch.stack([v.unflatten(0, (-1, part.shape[1])) for v in values], 1).flatten(0, 1))
        return torch.cat(parts, 1)


def _layers(before: int, *widths: int) -> list[nn.Module]:
    """A linear layer, batch norm and ReLU per width."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(before, width), nn.BatchNorm1d(width), nn.ReLU(inplace=True)]
        before = width
    return layers


def _split(layers: nn.Sequential, dtype: torch.dtype) -> tuple[Tensor, Tensor, Layer]:
    """Split a network into weight and bias of its first linear layer and a function for the rest."""
    if layers.training:
        first, offset = layers[0].parameters()
        return first, offset, layers[1:]
    (weight, bias), *others = _folded(layers)
    behind = [_linear(*pair, dtype) for pair in others]

    def rest(x: Tensor) -> Tensor:
        x = x.relu_()
        for layer in behind:
            x = layer(x).relu_()
        return x

    return weight, bias, rest


def _head(layers: nn.Module, dtype: torch.dtype) -> Layer:
    """A head of the fine network as a function, outside of training with batch norm folded in."""
    assert isinstance(layers, nn.Sequential)
    if layers.training:
        return layers
    weight, bias = layers[-1].parameters()
    hidden, last = _linear(*_folded(layers)[0], dtype), _linear(weight, bias, dtype)
    return lambda x: last(hidden(x).relu_())


def _folded(layers: nn.Sequential) -> list[tuple[Tensor, Tensor]]:
    """Weights and biases of the linear layers with the following batch norm folded in.

    Outside of training, batch norm is linear: with s = g / sqrt(var + eps), the weight is s W and the bias
    s (b - mean) + beta.
    """
    pairs = []
    for linear, norm in pairwise(layers):
        if isinstance(linear, nn.Linear) and isinstance(norm, nn.BatchNorm1d):
            assert norm.running_mean is not None and norm.running_var is not None
            factor = norm.weight * (norm.running_var + norm.eps).rsqrt()
            pairs.append(
                (linear.weight * factor[:, None], (linear.bias - norm.running_mean) * factor + norm.bias)
            )
    return pairs


def _linear(weight: Tensor, bias: Tensor, dtype: torch.dtype) -> Layer:
    """A linear layer as a function, with its weights converted to `dtype` once."""
    weight, bias = weight.to(dtype), bias.to(dtype)
    return lambda x: F.linear(x.to(dtype), weight, bias)
