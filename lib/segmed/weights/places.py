"""Where fetched weights lie."""

from __future__ import annotations

import os
from pathlib import Path


def weights_folder() -> Path:
    """The folder of weights that come from other servers than Hugging Face, and of the lock file.

    It is the environment variable `SEGMED_WEIGHTS`, else `segmed/weights` in the user's folder for data,
    which is `XDG_DATA_HOME` or `~/.local/share`. Weights from Hugging Face lie in its own cache (`HF_HOME`),
    which other programs share.
    """
    if chosen := os.environ.get("SEGMED_WEIGHTS"):
        return Path(chosen).expanduser()
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "segmed" / "weights"
