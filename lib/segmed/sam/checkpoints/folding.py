"""Batch normalisation as a part of the convolution before it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def folded(weight: Tensor, norm: str, state: Mapping[str, Tensor], eps: float) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution that includes its batch normalisation.

    Args:
        weight: Of the convolution, which has no bias, (C, …).
        norm: Prefix of the names of the normalisation, with its dot.
        state: The weights.
        eps: Of the normalisation.

    Raises:
        KeyError: The normalisation lacks a part.
    """
    # bn(c x) = g (c x - mean) / sqrt(var + eps) + b, a convolution by g c / sqrt(var + eps) and a bias
    scale = state[norm + "weight"].double() / (state[norm + "running_var"].double() + eps).sqrt()
    bias = state[norm + "bias"].double() - state[norm + "running_mean"].double() * scale
    return (weight.double() * scale.view(-1, *[1] * (weight.dim() - 1))).float(), bias.float()
