"""Checkpoints of trainings: written completely or not at all, read only with the settings that made them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch


def write_state(state: object, path: Path) -> None:
    """Write a state so that the file is the former one until the new one is complete."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)


def read_state(path: Path, facts: str, device: str) -> dict[str, Any]:
    """Read a state with weights and numbers.

    Args:
        path: The file.
        facts: The settings of the training, which the state holds as `facts`.
        device: Device of the tensors.

    Raises:
        ValueError: The file is damaged or was written with other settings.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise damaged(path, error) from error
    if state.get("facts") != facts:
        raise ValueError(
            f"{path} was written with other settings. Use the same settings to continue, or another folder "
            "to start again."
        )
    return state


def damaged(path: Path, error: Exception) -> ValueError:
    """The error for a checkpoint that cannot be read."""
    return ValueError(f"{path} is damaged ({type(error).__name__}). Remove it to start again.")


def write_log(entries: list[dict[str, Any]], folder: Path) -> None:
    """Write the validations of a training as one JSON object per line."""
    lines = "\n".join(json.dumps(entry) for entry in entries)
    (folder / "log.jsonl").write_text(lines + "\n", encoding="utf-8")
