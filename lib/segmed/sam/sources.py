"""What can name base weights: a path, a Hugging Face id, or the weights that come along; nothing is read."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from segmed.places import APP

logger = logging.getLogger(__name__)

_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[\w.-]+$")
_FILE_TYPES = (".safetensors", ".pth", ".pt", ".bin")
EMBEDDED = "segmed-tiny"  # the name of the small SAM that comes with the app
DEFAULT_MODEL = "segmed-default"  # the name of the default model that comes with the app
EMBEDDED_FOLDERS = {name: APP / "model" / name for name in (EMBEDDED, DEFAULT_MODEL)}
WHERE = (
    "Give a folder with config.json and model.safetensors, a .pth file in the original format such as "
    "medsam_vit_b.pth, or a Hugging Face id such as facebook/sam-vit-base."
)


def is_hub_id(source: str) -> bool:
    """Whether `source` names a Hugging Face repository and not a path."""
    if source in EMBEDDED_FOLDERS or Path(source).exists() or Path(source).suffix in _FILE_TYPES:
        return False
    return bool(_HUB_ID.match(source))


def check_source(source: str) -> None:
    """Refuse, without reading weights or using a network, what cannot be base weights.

    Raises:
        FileNotFoundError: neither an existing path nor the form of a Hugging Face id.
    """
    if source in EMBEDDED_FOLDERS:
        return
    if not Path(source).expanduser().exists() and not is_hub_id(source):
        raise FileNotFoundError(f"There are no SAM weights at {source!r}. {WHERE}")


def local_source(source: str) -> str:
    """The path of base weights on this machine; a Hugging Face id is fetched if it is not there yet.

    Raises:
        FileNotFoundError: nothing there, or the id cannot be fetched.
    """
    check_source(source)
    if source in EMBEDDED_FOLDERS:
        if not EMBEDDED_FOLDERS[source].is_dir():
            raise FileNotFoundError(
                f"The embedded model is missing: there is no folder apps/segmed/model/{source}."
            )
        return str(EMBEDDED_FOLDERS[source])
    return str(_fetch(source) if is_hub_id(source) else Path(source).expanduser())


def _fetch(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub_id, allow_patterns=["config.json", "model.safetensors"]))
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        logger.info("cannot fetch %s: %s", hub_id, error)
        raise FileNotFoundError(
            f"The weights {hub_id!r} cannot be fetched from Hugging Face (no network, or no such name). "
            f"Fetch them on "
            "a machine with a network, copy the folder here and start with --conf backbone FOLDER."
        ) from error
