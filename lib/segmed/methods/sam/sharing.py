"""Models that share their weights."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from torch import nn

if TYPE_CHECKING:
    from transformers import SamModel

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


def encoder_layers(model: SamModel, method: str) -> Iterable[Any]:
    """The layers of a ViT encoder, for methods that change each of them.

    Args:
        model: Any SAM.
        method: Name of the method, for the message.

    Raises:
        ValueError: The encoder is no ViT.
    """
    layers: Any = getattr(model.vision_encoder, "layers", None)
    if layers is None:
        raise ValueError(
            f"The method {method!r} changes the layers of a ViT, which these weights do not have. Take "
            "others, such as sam-vit-base, or the method medsam, gafl or featup."
        )
    return layers
