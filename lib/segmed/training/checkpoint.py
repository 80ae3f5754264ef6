"""Checkpoints that survive crashes and are accepted only by the training that they belong to."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from segmed.data.slices import SliceDataset
from segmed.imaging.durable import appear_whole


def save_checkpoint(path: Path, facts: Mapping[str, str], state: Mapping[str, Any]) -> None:
    """Write a checkpoint beside the old one, then replace the old one.

    Args:
        path: The file.
        facts: Facts that a resumed training must share, by their names.
        state: Tensors, numbers, strings, and lists and dictionaries of them.

    Raises:
        OSError: If the checkpoint cannot be written for lack of space or rights; the old one is unchanged.
    """
    try:
        with appear_whole(path) as part, part.open("wb") as file:
            torch.save({"facts": dict(facts), "state": dict(state)}, file)
    except (OSError, RuntimeError) as error:  # torch hides the error of a full disk in its own
        cause = error if isinstance(error, OSError) else error.__context__
        raise OSError(
            f"The checkpoint could not be written to {path.parent} ({cause or error!s:.200}). The previous "
            "one is unchanged. Free space there, then start the same training again to continue from it."
        ) from error


def load_checkpoint(path: Path, facts: Mapping[str, str]) -> dict[str, Any] | None:
    """Read the state of a checkpoint to the CPU; None if there is no file.

    Raises:
        ValueError: If the checkpoint is damaged, or was written with other facts.
    """
    if not path.exists():
        return None
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
        known, state = dict(stored["facts"]), dict(stored["state"])
    except Exception as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}). Remove it to start again.") from error
    for name in dict.fromkeys([*facts, *known]):
        if known.get(name) != facts.get(name):
            raise ValueError(
                f"{path} was made with another {name}, {known.get(name)} instead of {facts.get(name)}. Train "
                "with the same to continue, or in another folder to start again."
            )
    return state


def data_facts(data: SliceDataset) -> str:
    """Describe a dataset in a line by its slices, names and sizes of images, and checksums of label maps.

    The line does not depend on the folder of the dataset.
    """
    digest = hashlib.sha256(
        repr((data.slices, sorted(data.classes.items()), data.binary, data.unit)).encode()
    )
    used = sorted({n for n, _ in data.slices})
    for n in used:
        volume = data.volumes[n]
        sizes = [(path.name, path.stat().st_size) for path in volume.files]
        digest.update(repr((volume.patient, sizes, zlib.crc32(volume.label.read_bytes()))).encode())
    return f"{len(data)} slices of {len(used)} images, {digest.hexdigest()[:16]}"
