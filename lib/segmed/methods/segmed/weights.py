"""Storage of the default model: a folder with `config.json` and `model.safetensors` in half precision."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from segmed.methods.segmed.click_choice import load_choice
from segmed.methods.segmed.network import PromptNetwork

ARCHITECTURE = "segmed-prompt-network"
_FILE = "model.safetensors"


def save_network(network: PromptNetwork, folder: str | os.PathLike[str]) -> Path:
    """Write a network to a folder; files appear complete or not at all."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        name: t.detach().to("cpu", torch.float16).contiguous() for name, t in network.state_dict().items()
    }
    part = folder / f"{_FILE}.part"
    save_file(state, part)
    part.chmod(0o644)
    part.replace(folder / _FILE)
    config = {"architecture": ARCHITECTURE, "encoder": "EfficientNet-Lite0"}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return folder


def is_network_folder(folder: str | os.PathLike[str]) -> bool:
    """Whether the config.json of a folder describes such a network."""
    try:
        config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("architecture") == ARCHITECTURE


def load_network(folder: str | os.PathLike[str]) -> PromptNetwork:
    """Read a network in float32.

    Raises:
        FileNotFoundError: If the folder or one of its files is missing.
        ValueError: If the files are damaged or of another architecture.
    """
    folder = Path(folder)
    for name in ("config.json", _FILE):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder / name} is missing. The default model needs config.json and {_FILE}; "
                "copy the folder again."
            )
    if not is_network_folder(folder):
        raise ValueError(
            f"{folder / 'config.json'} does not describe a {ARCHITECTURE}. Give the default model's folder."
        )
    network = PromptNetwork()
    try:
        network.load_state_dict({name: t.float() for name, t in load_file(folder / _FILE).items()})
    except (SafetensorError, OSError, RuntimeError) as error:
        raise ValueError(
            f"{folder / _FILE} is damaged or of another version ({type(error).__name__})."
        ) from error
    network.choice = load_choice(folder)
    return network.eval().to(memory_format=torch.channels_last)


def network_version(network: PromptNetwork) -> str:
    """A short hash of the weights."""
    digest = hashlib.sha256()
    choice = {} if network.choice is None else dict(network.choice.named_buffers())
    for name, tensor in [*sorted(network.state_dict().items()), *sorted(choice.items())]:
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]
