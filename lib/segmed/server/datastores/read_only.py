"""Studies in which the server may not write: they are served all the same, and what it notes is gone when it
ends."""

from __future__ import annotations

import atexit
import json
import logging
import shutil
import tempfile
from functools import cache
from pathlib import Path

from segmed.data.datastore import LIST
from segmed.server.http.errors import MAY_ONLY_READ, BadRequest

logger = logging.getLogger(__name__)

TOLD = (
    "The server may only read its studies folder: labels cannot be saved, and unsaved work ends with the "
    "server."
)
_LABELS = "labels"
_TAGS = ("final", "original")


def can_write(folder: Path) -> bool:
    """Whether this process may make files in a folder; tried, as rights alone do not tell on network
    drives."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def check_writable(writable: bool) -> None:
    """Raises BadRequest (403) where the studies may only be read."""
    if not writable:
        raise BadRequest(MAY_ONLY_READ, 403)


def stand_in(root: Path) -> Path:
    """A private folder with the list of the studies and links to their labels, which MONAI Label may write
    to.

    Args:
        root: the studies; the list in the private folder names it as the place of the images.
    """
    folder = private_folder("studies")
    (folder / _LABELS).mkdir()
    there = root / _LABELS
    found = [path.name for path in there.iterdir() if path.is_dir()] if there.is_dir() else []
    for tag in {*found, *_TAGS}:
        if tag in found:
            (folder / _LABELS / tag).symlink_to(there / tag, target_is_directory=True)
        else:
            (folder / _LABELS / tag).mkdir()
    try:
        told = dict(json.loads((root / LIST).read_text(encoding="utf-8")))
        told |= {"images_dir": str(root), "labels_dir": _LABELS}
        (folder / LIST).write_text(json.dumps(told), encoding="utf-8")
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        logger.error("%s cannot be read (%.200s); labels are listed from their files.", root / LIST, error)
    return folder


@cache
def state_in_place_of(root: Path) -> Path:
    """Where the state of studies is kept that may only be read, for as long as this process runs."""
    return private_folder("state") / root.name / ".segmed"


def private_folder(name: str) -> Path:
    """A folder of mode 700 that is removed when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
