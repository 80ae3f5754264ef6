"""Checkpoints of a training: written so that a crash leaves the last one whole, refused where they do not belong."""

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
    """Write beside the old checkpoint, then put it in its place.

    Args:
        path: file.
        facts: what a training that goes on must share, by what it is called.
        state: tensors, numbers, strings, and lists and dictionaries of them.

    Raises:
        OSError: it could not be written, for want of space or of rights; the old one is as it was.
    """
    try:
        with appear_whole(path) as part, part.open("wb") as file:
            torch.save({"facts": dict(facts), "state": dict(state)}, file)
    except (OSError, RuntimeError) as error:  # torch hides the error of a full disk in its own
        cause = error if isinstance(error, OSError) else error.__context__
        raise OSError(
            f"The checkpoint could not be written to {path.parent} ({cause or error!s:.200}). The last one is as it "
            "was. Free space there, then start the same training again to go on from it."
        ) from error


def load_checkpoint(path: Path, facts: Mapping[str, str]) -> dict[str, Any] | None:
    """The state of a checkpoint, on the CPU; None if there is no file.

    Raises:
        ValueError: it is damaged, or was made with other facts.
    """
    if not path.exists():
        return None
    try:
        kept = torch.load(path, map_location="cpu", weights_only=True)
        known, state = dict(kept["facts"]), dict(kept["state"])
    except Exception as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}). Remove it to start anew.") from error
    for name in dict.fromkeys([*facts, *known]):
        if known.get(name) != facts.get(name):
            raise ValueError(
                f"{path} was made with another {name}, {known.get(name)} instead of {facts.get(name)}. Train with the "
                "same to go on, or in another folder to start anew."
            )
    return state


def data_facts(data: SliceDataset) -> str:
    """A dataset in a line: which slices, images by name and size, label maps by checksum. Other places are the same."""
    digest = hashlib.sha256(repr((data.slices, sorted(data.classes.items()), data.binary, data.unit)).encode())
    used = sorted({n for n, _ in data.slices})
    for n in used:
        volume = data.volumes[n]
        sizes = [(path.name, path.stat().st_size) for path in volume.files]
        digest.update(repr((volume.patient, sizes, zlib.crc32(volume.label.read_bytes()))).encode())
    return f"{len(data)} slices of {len(used)} images, {digest.hexdigest()[:16]}"
