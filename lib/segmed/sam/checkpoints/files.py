"""Files of weights, read without executing code that they may contain."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from segmed.sam.checkpoints.families import foreign
from segmed.sam.checkpoints.pickles import load_pickled
from segmed.weights.contents import check_file

FILE_TYPES = (".safetensors", ".pth", ".pt", ".bin")
_NAMES = ("model.safetensors", "pytorch_model.bin")


def weights_in(folder: Path) -> Path | None:
    """The file of weights in a folder: `model.safetensors`, else `pytorch_model.bin`, else the only one there
    is."""
    for name in _NAMES:
        if (folder / name).is_file():
            return folder / name
    found = [path for path in folder.iterdir() if path.suffix in FILE_TYPES]
    return found[0] if len(found) == 1 else None


def read_state(path: Path, where: str) -> dict[str, Tensor]:
    """The named weights of a file that can be base weights, as `read_named` gives them.

    Raises:
        ValueError: As for `read_named`, or the weights belong to a model that SegMed cannot load.
    """
    named = read_named(path, where)
    if other := foreign(named):
        raise ValueError(f"{path.name} cannot be used. {other}")
    return named


def read_named(path: Path, where: str) -> dict[str, Tensor]:
    """The named weights of a file, without the `module.` prefix of multi-GPU training.

    Args:
        path: `.safetensors`, or a file of torch.save, which may hold the weights under "model" or
            "state_dict".
        where: what to give instead, for messages.

    Raises:
        ValueError: it is damaged, or holds something else than weights.
    """
    try:
        check_file(path)
        state = load_file(path) if path.suffix == ".safetensors" else load_pickled(path)
    except (
        SafetensorError,
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
    ) as error:
        raise ValueError(
            f"The weights file {path.name} cannot be read: it is cut off, damaged, or holds code instead of "
            f"weights ({str(error).splitlines()[0] if str(error) else type(error).__name__:.120}). Copy it "
            f"again. {where}"
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(t, Tensor) for t in state.values()):
        raise ValueError(f"{path.name} does not hold named weights. {where}")
    return {str(name).removeprefix("module."): tensor for name, tensor in state.items()}
