"""What is told beside trained weights, read without them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_facts(folder: Path) -> dict[str, Any]:
    """The `config.json` beside trained weights.

    Raises:
        FileNotFoundError: none there.
        ValueError: not ours.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder.name} has no config.json. Give a folder that `segmed train` wrote.")
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        if not {"method", "backbone", "image_size", "config"} <= set(facts):
            raise ValueError("method, backbone, image_size or config is missing")
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"The config.json in {folder.name} is not that of trained weights: {error}."
        ) from error
    return dict(facts)
