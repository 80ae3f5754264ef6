"""The choice among the masks that clicks may mean: a small network that compares all of them.

The network of the default model predicts the IoU of each mask from inside its window. Which mask was meant
can be seen better from outside: how many others agree with it, where the click lies in it, and whether its
outline follows an edge.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from segmed.methods.segmed.click_hypotheses import FEATURES

_FILE = "click_choice.safetensors"
_COUNT = len(FEATURES)


class ClickChoice(nn.Module):
    """Scores masks of clicks, the meant one highest.

    Each mask's features x_n are standardised and put beside their mean over all masks that are not empty, so
    that masks are compared: s_n = w3 relu(W2 relu(W1 [x_n, mean_m x_m] + b1) + b2) + b3. The weights are
    buffers, because fine-tuning on a user's labels leaves them as they are.

    Args:
        state: The tensors `mean`, `deviation` (F,) and `w1`, `b1`, `w2`, `b2`, `w3`, `b3`.

    Raises:
        ValueError: A tensor is missing or of another shape.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        wanted = {"mean", "deviation", "w1", "b1", "w2", "b2", "w3", "b3"}
        if set(state) != wanted or state["w1"].shape[1:] != (2 * _COUNT,) or state["mean"].shape != (_COUNT,):
            raise ValueError(
                f"The choice among the masks of clicks needs the tensors {', '.join(sorted(wanted))} for "
                f"{_COUNT} features; found are {', '.join(f'{k} {tuple(state[k].shape)}' for k in state)}."
            )
        for name, tensor in state.items():
            self.register_buffer(name, tensor.float(), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Score masks by their features, (…, N, F) to (…, N); empty masks get the lowest score."""
        x = (features.to(self.mean) - self.mean) / self.deviation
        empty = features[..., -1:].to(x.device) > 0
        x = torch.cat([x, mean_of_present(x, empty).expand_as(x)], -1)
        for layer in ("1", "2", "3"):
            x = nn.functional.linear(x, getattr(self, f"w{layer}"), getattr(self, f"b{layer}"))
            x = x if layer == "3" else x.relu()
        return x[..., 0].masked_fill(empty[..., 0], -1e4)


def mean_of_present(x: Tensor, empty: Tensor) -> Tensor:
    """The mean (…, 1, F) of features (…, N, F) over the masks that are not empty, (…, N, 1)."""
    return x.masked_fill(empty, 0).sum(-2, keepdim=True) / (~empty).sum(-2, keepdim=True).clamp(min=1)


def save_choice(state: dict[str, Tensor], folder: str | os.PathLike[str]) -> Path:
    """Write the tensors of a `ClickChoice` beside the network's in a folder."""
    path = Path(folder) / _FILE
    save_file({name: tensor.detach().float().contiguous() for name, tensor in state.items()}, path)
    path.chmod(0o644)
    return path


def load_choice(folder: str | os.PathLike[str]) -> ClickChoice | None:
    """Read the choice of a folder; None if it has none, so that the masks' agreement decides.

    Raises:
        ValueError: The file is damaged.
    """
    path = Path(folder) / _FILE
    if not path.is_file():
        return None
    try:
        return ClickChoice(load_file(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}). Copy the folder again.") from error
