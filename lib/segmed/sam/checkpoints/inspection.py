"""Whether files can be the base weights of a method, without reading the weights themselves."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from segmed.sam.checkpoints.families import foreign, is_sam2
from segmed.sam.checkpoints.files import weights_in
from segmed.sam.checkpoints.pickles import load_pickled
from segmed.weights.contents import check_file

_MODEL_TYPES = {"sam": ("sam",), "sam2": ("sam2", "sam2_video")}
_CALLED = {"sam": "SAM", "sam2": "SAM 2"}
_HINT = {"sam": "It belongs to --conf backbone.", "sam2": "It belongs to --conf backbone_sam2."}


def inspect(path: Path, kind: str) -> None:
    """Refuse files that cannot be weights of a kind. It takes milliseconds whatever their size.

    Args:
        path: The file or folder.
        kind: `sam` or `sam2`.

    Raises:
        ValueError: The file is a web page, cut off, or belongs to another model.
        FileNotFoundError: The folder contains no weights.
    """
    file = path
    if path.is_dir():
        found = weights_in(path)
        if found is None:
            raise FileNotFoundError(f"The folder {path.name} has no model.safetensors or pytorch_model.bin.")
        file = found
        _check_config(path, kind)
    check_file(file)
    try:
        names = _names(file)
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"The weights file {file.name} is cut off, damaged, or holds code instead of weights "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__:.120}). Copy it again."
        ) from error
    if other := foreign(names):
        raise ValueError(f"{file.name} cannot be used. {other}")
    if names and is_sam2(names) != (kind == "sam2"):
        hint = f" {_HINT['sam2']}" if is_sam2(names) else ""
        raise ValueError(f"{file.name} is no {_CALLED[kind]}.{hint}")


def _check_config(folder: Path, kind: str) -> None:
    try:
        raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        actual = raw.get("model_type")
    except FileNotFoundError:
        return  # the sizes of a SAM are told by its weights
    except (ValueError, AttributeError) as error:
        raise ValueError(f"The config.json in {folder.name} is damaged ({error}).") from error
    if actual not in _MODEL_TYPES[kind]:
        hint = next((f" {_HINT[other]}" for other, types in _MODEL_TYPES.items() if actual in types), "")
        raise ValueError(
            f"The config.json in {folder.name} is not that of a {_CALLED[kind]} (model_type is "
            f"{actual}).{hint}"
        )


def _names(file: Path) -> dict[str, Tensor]:
    """Names and shapes, with tensors that hold nothing."""
    if file.suffix == ".safetensors":
        with safe_open(file, "pt") as opened:
            keys = list(opened.keys())
            shapes = {key: opened.get_slice(key).get_shape() for key in keys}
        return {key.removeprefix("module."): torch.empty(shapes[key], device="meta") for key in keys}
    state = load_pickled(file, "meta")
    if not isinstance(state, Mapping):
        return {}
    return {str(key).removeprefix("module."): t for key, t in state.items() if isinstance(t, Tensor)}
