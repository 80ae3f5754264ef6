"""What can name base weights: a path, a Hugging Face id, or the weights that come along; nothing is read."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from segmed.places import APP
from segmed.weights.table import PUBLISHED

logger = logging.getLogger(__name__)

_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[\w.-]+$")
_FILE_TYPES = (".safetensors", ".pth", ".pt", ".bin")
EMBEDDED = "segmed-tiny"  # the name of the small SAM that comes with the app
DEFAULT_MODEL = "segmed-default"  # the name of the default model that comes with the app
EMBEDDED_FOLDERS = {name: APP / "model" / name for name in (EMBEDDED, DEFAULT_MODEL)}
WHERE = (
    "Give a name that `segmed weights list` shows, a folder with config.json and model.safetensors, a .pth "
    "file in the original format such as medsam_vit_b.pth, or a Hugging Face id such as "
    "facebook/sam-vit-base."
)


def is_hub_id(source: str) -> bool:
    """Whether `source` names a Hugging Face repository and not a path."""
    if source in EMBEDDED_FOLDERS or Path(source).exists() or Path(source).suffix in _FILE_TYPES:
        return False
    return bool(_HUB_ID.match(source))


def is_name(source: str) -> bool:
    """Whether `source` names published weights; a file or folder of that name goes first."""
    return source in PUBLISHED and not Path(source).exists()


def declared_preparation(source: str) -> str:
    """How slices are prepared for published weights; "" where nothing is known about the source.

    Args:
        source: Name, Hugging Face id, or path of a file that has the name of the published one.
    """
    if is_name(source):
        return PUBLISHED[source].preparation
    file = Path(source).name
    for weights in PUBLISHED.values():
        if source == weights.repository or weights.files == (file,):
            return weights.preparation
    return ""


def check_source(source: str) -> None:
    """Refuse, without reading weights or using a network, what cannot be base weights.

    Raises:
        FileNotFoundError: Neither an existing path nor the form of a Hugging Face id, or the name of
            published weights that have not been fetched.
        ValueError: The name of published weights that SegMed cannot load.
    """
    if source in EMBEDDED_FOLDERS:
        return
    if is_name(source):
        _resolve(source)
    elif not Path(source).expanduser().exists() and not is_hub_id(source):
        raise FileNotFoundError(f"There are no SAM weights at {source!r}. {WHERE}")


def local_source(source: str) -> str:
    """The path of base weights on this machine; a Hugging Face id is fetched if it is not there yet.

    Raises:
        FileNotFoundError: If there is nothing, or the id cannot be fetched.
    """
    check_source(source)
    if source in EMBEDDED_FOLDERS:
        if not EMBEDDED_FOLDERS[source].is_dir():
            raise FileNotFoundError(
                f"The embedded model is missing: there is no folder apps/segmed/model/{source}."
            )
        return str(EMBEDDED_FOLDERS[source])
    if is_name(source):
        return str(_resolve(source))
    return str(_fetch(source) if is_hub_id(source) else Path(source).expanduser())


def _resolve(name: str) -> Path:
    from segmed.weights.lookup import resolve  # huggingface_hub comes with it

    return resolve(name)


def _fetch(hub_id: str) -> Path:
    from segmed.weights import hub

    for name in ("model.safetensors", "pytorch_model.bin"):
        if folder := hub.cached(hub_id, ("config.json", name)):
            return folder
    try:
        return _fetch_newest(hub_id)
    except OSError as error:
        logger.info("cannot fetch %s: %s", hub_id, error)
        raise FileNotFoundError(
            f"The weights {hub_id!r} cannot be fetched from Hugging Face. {error} On a machine with a "
            "network, fetch them, copy the folder here and start with --conf backbone FOLDER."
        ) from error


def _fetch_newest(hub_id: str) -> Path:
    from segmed.weights import hub
    from segmed.weights.errors import MissingFileError

    try:
        return hub.fetch_files(hub_id, ("config.json", "model.safetensors"))
    except MissingFileError:
        return hub.fetch_files(hub_id, ("config.json", "pytorch_model.bin"))
