"""Weights with which the training of a detector starts."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import Tensor, nn


def start_from(network: nn.Module, file: Path) -> int:
    """Load the tensors of a file that have the names and shapes of the network's; others stay as they are.

    Only tensors are read. Heads for another number of classes thus start from random weights.

    Args:
        network: The network, which is changed.
        file: A state dict, as `torch.save(network.state_dict(), file)` writes it.

    Returns:
        Number of loaded tensors.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds other objects than tensors, or none of them fits.
    """
    if not file.is_file():
        raise FileNotFoundError(
            f"There is no file {file}. Give a file of weights, or none to start at random."
        )
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{file.name} holds more than tensors, as the .pt files of ultralytics do; reading it could run "
            "any code. Convert it where you trust it, by torch.save(YOLO(FILE).model.float().state_dict(), "
            "NEW), and give the new file."
        ) from error
    own = network.state_dict()
    state = content if isinstance(content, dict) else {}
    fitting = {
        name: tensor
        for name, tensor in state.items()
        if isinstance(tensor, Tensor) and name in own and own[name].shape == tensor.shape
    }
    if not fitting:
        raise ValueError(
            f"None of the {len(state)} entries of {file.name} fits this detector. Give the state dict of the "
            "same architecture."
        )
    network.load_state_dict(fitting, strict=False)
    return len(fitting)
