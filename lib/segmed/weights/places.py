"""Where fetched weights are stored."""

from __future__ import annotations

import os
from pathlib import Path


def weights_folder() -> Path:
    """The folder of the lock file and of weights that do not come from Hugging Face.

    The environment variable `SEGMED_WEIGHTS` sets it; the default is `segmed/weights` in the user's data
    folder (`XDG_DATA_HOME`, or `~/.local/share`). Weights from Hugging Face are in its own cache (`HF_HOME`),
    which is shared with other programs.
    """
    if chosen := os.environ.get("SEGMED_WEIGHTS"):
        return Path(chosen).expanduser()
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "segmed" / "weights"
