"""Files of torch.save, opened only if their pickled part can be a list of weights."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

_LARGEST = 64 * 2**20  # bytes of names and shapes; those of the largest published models take less than 1 MB
_MAGIC = bytes.fromhex("8a0a6cfc9c46f9206aa850192e")  # a number that begins the files of PyTorch before 1.6
_NESTED = ("model", "state_dict")  # where checkpoints of trainings hold the weights


def load_pickled(path: Path, device: str = "cpu") -> Any:
    """The content of a file, without executing code that it may contain.

    Args:
        path: The file.
        device: `cpu`, or `meta` for names and shapes without the weights.

    Returns:
        The content; of a checkpoint that holds weights beside other things, the weights.

    Raises:
        ValueError: It is no file of torch.save, or one whose pickled part would fill the memory.
        pickle.UnpicklingError: It holds something else than weights.
        RuntimeError: It is damaged.
        OSError: It cannot be read.
    """
    _check(path)
    mapped = device == "meta" and zipfile.is_zipfile(path)
    content = torch.load(path, map_location=device, weights_only=True, mmap=mapped)
    for name in _NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            return content[name]
    return content


def _check(path: Path) -> None:
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            if _MAGIC not in file.read(64):
                raise ValueError("torch.save wrote no such file")
        return
    with zipfile.ZipFile(path) as opened:
        size = sum(part.file_size for part in opened.infolist() if part.filename.endswith(".pkl"))
    if size > _LARGEST:
        raise ValueError(f"its pickled part takes {size / 2**20:.0f} MB, more than names of weights can")
