"""I-MedSAM's networks of points as functions, outside of training with batch norm folded into weights."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Layer = Callable[[Tensor], Tensor]


def network(before: int, *widths: int) -> list[nn.Module]:
    """A linear layer, batch norm and ReLU per width."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(before, width), nn.BatchNorm1d(width), nn.ReLU(inplace=True)]
        before = width
    return layers


def split_network(layers: nn.Sequential, dtype: torch.dtype) -> tuple[Tensor, Tensor, Layer]:
    """Split a network into weight and bias of its first linear layer and a function for the rest."""
    if layers.training:
        first, offset = layers[0].parameters()
        return first, offset, layers[1:]
    (weight, bias), *others = _folded(layers)
    behind = [linear_function(*pair, dtype) for pair in others]

    def rest(x: Tensor) -> Tensor:
        x = x.relu_()
        for layer in behind:
            x = layer(x).relu_()
        return x

    return weight, bias, rest


def head_function(layers: nn.Module, dtype: torch.dtype) -> Layer:
    """A head of the fine network as a function, outside of training with batch norm folded in."""
    assert isinstance(layers, nn.Sequential)
    if layers.training:
        return layers
    weight, bias = layers[-1].parameters()
    hidden, last = linear_function(*_folded(layers)[0], dtype), linear_function(weight, bias, dtype)
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


def linear_function(weight: Tensor, bias: Tensor, dtype: torch.dtype) -> Layer:
    """A linear layer as a function, with its weights converted to `dtype` once."""
    weight, bias = weight.to(dtype), bias.to(dtype)
    return lambda x: F.linear(x.to(dtype), weight, bias)
