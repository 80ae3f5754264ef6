"""Masks as a function of position: a coarse network everywhere, a fine one where the coarse one is unsure.

Source: Wei et al., I-MedSAM: Implicit Medical Image Segmentation with Segment Anything (2024). Coarse values on a grid
of their own, interpolated, with the finer network at the uncertain pixels of the output: Kirillov et al., PointRend:
Image Segmentation as Rendering (CVPR 2020). Uncertainty from dropout: Gal and Ghahramani, Dropout as a Bayesian
Approximation (ICML 2016).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segmed.methods.place_layer import CoordinateLayer, encode_positions

Layer = Callable[[Tensor], Tensor]

CHUNK, CHUNK_CPU = 65_536, 2_048  # points that pass through the networks together; what stays in a CPU's caches
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

    Dropout acts on the last hidden layer of the coarse network. Each pass draws one set of units for all points and
    classes, that is one function out of the posterior, so that a pass is a product with masked weights, does not depend
    on how points are batched, and is the same function at every output size.

    Args:
        source: channels of the feature maps.
        position: channels of the positional maps.
        classes: heads; objects come in the order of their classes, again and again.
        share: of the pixels, which the fine network refines.
        nodes: side of the grid of coarse values, or None for a value at every pixel of the output.
        published: encode a constant third coordinate and the authors' frequencies, 63 values instead of 42.
    """

    def __init__(
        self, source: int, position: int, classes: int, share: float, nodes: int | None, published: bool = False
    ) -> None:
        super().__init__()
        self.classes, self.share, self.nodes, self.published = classes, share, nodes, published
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
        """Decode n objects, a multiple of the classes.

        Args:
            source: (n, source, h, w) feature maps.
            position: (1, position, t, t) dense positional encoding.
            size: (H, W) of the output.
            passes: how many sets of units are drawn.
            generator: draws them, on the CPU; None takes PyTorch's global one.
            dtype: of the products behind the first layers, outside of training.
        """
        maps = [m.permute(0, 2, 3, 1).float().contiguous() for m in (source, position)]
        first, bias, rest = _split(self.fine_trunk, dtype)
        from_features, first = first.split([_FEATURE, first.shape[1] - _FEATURE], 1)
        shape = size if self.nodes is None else (self.nodes, self.nodes)
        logits, features = self._coarse(maps, shape, passes, generator, from_features, dtype)
        logits = F.interpolate(logits, size, mode="bilinear", align_corners=False).flatten(2)
        coarse = logits.mean(1)
        probability = logits.detach().sigmoid()
        uncertainty = (probability - probability.mean(1, keepdim=True)).square().mean(1)
        count = max(1, round(self.share * uncertainty.shape[1]))
        chosen = uncertainty.topk(count, dim=1, sorted=False).indices.sort().values  # neighbours share rows of a table
        layer = CoordinateLayer(first, bias, maps, size, count, self.published, features)
        fine = self._in_parts(layer, chosen, rest, [_head(head, dtype) for head in self.fine_heads])[..., 0]
        return Refined(*(m.unflatten(1, size) for m in (coarse, coarse.scatter(1, chosen, fine), uncertainty)))

    def _coarse(
        self,
        maps: list[Tensor],
        shape: tuple[int, int],
        passes: int,
        generator: torch.Generator | None,
        from_features: Tensor,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        """Logits of each pass (n, passes, *shape), and what the fine network's first layer makes of features.

        That layer and the coarse heads have nothing between them but interpolation, which is linear: they are joined.
        """
        device = maps[0].device
        kept = torch.bernoulli(torch.full((passes, _COARSE[-1]), 1 - _DROPPED, device="cpu"), generator=generator)
        kept = kept.to(device) / (1 - _DROPPED)
        first, bias, rest = _split(self.coarse_trunk, dtype)
        heads: list[Layer] = []
        for head in self.coarse_heads:
            weight, offset = head.parameters()
            weights = torch.cat([weight[:1] * kept, from_features @ (weight[1:] * kept.mean(0))])
            offsets = torch.cat([offset[:1].expand(passes), from_features @ offset[1:]])
            heads.append(_linear(weights, offsets, dtype))
        count = shape[0] * shape[1]
        layer = CoordinateLayer(first, bias, maps, shape, count, self.published)
        out = self._in_parts(layer, torch.arange(count, device=device)[None], rest, heads)
        logits, features = out.unflatten(1, shape).split([passes, out.shape[-1] - passes], -1)
        return logits.permute(0, 3, 1, 2).contiguous(), features.contiguous()

    def _in_parts(self, layer: CoordinateLayer, pixels: Tensor, rest: Layer, heads: list[Layer]) -> Tensor:
        """A network at pixels (n or 1, P) of a grid, each object by the head of its class: (n, P, channels)."""
        parts = []
        # batch statistics are those of all points
        chunk = CHUNK_CPU if pixels.device.type == "cpu" else CHUNK
        step = pixels.shape[1] if self.training else max(1, chunk // layer.objects)
        for part in pixels.split(step, 1):
            hidden = rest(layer(part)).unflatten(0, (-1, len(heads), part.shape[1]))
            values = [head(hidden[:, c].flatten(0, 1)).float() for c, head in enumerate(heads)]
            parts.append(torch.stack([v.unflatten(0, (-1, part.shape[1])) for v in values], 1).flatten(0, 1))
        return torch.cat(parts, 1)


def _layers(before: int, *widths: int) -> list[nn.Module]:
    """Linear, batch norm and ReLU per width."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(before, width), nn.BatchNorm1d(width), nn.ReLU(inplace=True)]
        before = width
    return layers


def _split(layers: nn.Sequential, dtype: torch.dtype) -> tuple[Tensor, Tensor, Layer]:
    """Weight and bias of the first linear layer, and what comes behind it."""
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
    """A head of the fine network."""
    assert isinstance(layers, nn.Sequential)
    if layers.training:
        return layers
    weight, bias = layers[-1].parameters()
    hidden, last = _linear(*_folded(layers)[0], dtype), _linear(weight, bias, dtype)
    return lambda x: last(hidden(x).relu_())


def _folded(layers: nn.Sequential) -> list[tuple[Tensor, Tensor]]:
    """Weights and biases of the linear layers with the batch norm behind them, outside of training a linear map."""
    pairs = []
    for linear, norm in pairwise(layers):
        if isinstance(linear, nn.Linear) and isinstance(norm, nn.BatchNorm1d):
            assert norm.running_mean is not None and norm.running_var is not None
            factor = norm.weight * (norm.running_var + norm.eps).rsqrt()
            pairs.append((linear.weight * factor[:, None], (linear.bias - norm.running_mean) * factor + norm.bias))
    return pairs


def _linear(weight: Tensor, bias: Tensor, dtype: torch.dtype) -> Layer:
    """A linear layer whose weights are converted once."""
    weight, bias = weight.to(dtype), bias.to(dtype)
    return lambda x: F.linear(x.to(dtype), weight, bias)
