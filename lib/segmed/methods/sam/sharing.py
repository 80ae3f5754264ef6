"""Models that share their weights."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import TypeVar

from torch import nn

Model = TypeVar("Model", bound=nn.Module)


def share_weights(model: Model, own: Collection[str] = ()) -> Model:
    """A copy of a model's modules on the weights of the original, for methods that hook into modules.

    Args:
        model: left as it is; neither its modules nor its `requires_grad` flags are touched through the copy.
        own: names of parameters that the copy gets memory of its own for, because they will change.
    """
    memo: dict[int, nn.Parameter] = {}
    for name, parameter in model.named_parameters():
        weight = parameter.detach()
        memo[id(parameter)] = nn.Parameter(weight.clone() if name in own else weight, requires_grad=False)
    return copy.deepcopy(model, memo)
