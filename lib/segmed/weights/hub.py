"""Files of Hugging Face repositories, in the cache that all programs of a user share (`HF_HOME`)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    XetDownloadError,
)
from huggingface_hub.utils import tqdm

from segmed.weights.contents import sha256_of
from segmed.weights.download import Tell
from segmed.weights.errors import (
    DamagedError,
    FetchError,
    MissingFileError,
    is_full,
    no_space,
    offline,
    unreachable,
)
from segmed.weights.lock import LockedFile

_SHA256 = re.compile(r"[0-9a-f]{64}")
_BROKEN_OFF = ("RemoteProtocolError", "ReadError", "ReadTimeout")  # of the HTTP library of huggingface_hub
_COMMIT = re.compile(r"[0-9a-f]{40}")


def cached(repository: str, files: Sequence[str], revision: str = "") -> Path | None:
    """The folder of these files if all of them are in the cache.

    Args:
        repository: Hugging Face id.
        files: Names of the files.
        revision: Commit; "" for the one that was last fetched from the main branch.
    """
    paths = [try_to_load_from_cache(repository, name, revision=revision or None) for name in files]
    found = [Path(path) for path in paths if isinstance(path, str)]
    return found[0].parent if found and len(found) == len(files) else None


def fetch_files(repository: str, files: Sequence[str], tell: Tell | None = None, revision: str = "") -> Path:
    """Fetch the files that are not in the cache yet.

    Args:
        repository: Hugging Face id.
        files: Names of the files.
        tell: Function that is told the progress of each file.
        revision: Commit; "" for the newest one of the main branch.

    Returns:
        The folder that contains them, named after the commit.

    Raises:
        FetchError: The machine is offline, there is no connection, the repository or file does not exist, a
            licence has to be accepted first, or the disk is full.
        OSError: The cache cannot be written.
    """
    paths = []
    for name in files:
        try:
            bar = _bar(tell) if tell else None
            paths.append(Path(hf_hub_download(repository, name, revision=revision or None, tqdm_class=bar)))
        except Exception as error:  # the classes of its HTTP library are not part of its interface
            raise _explained(repository, name, error) from error
    return paths[0].parent


def check_blob(path: Path) -> LockedFile:
    """Checksum and size of a cached file, whose name in the cache is the SHA-256 stated by the hub.

    Raises:
        DamagedError: The content does not have this checksum.
    """
    found, blob = sha256_of(path), path.resolve().name
    if _SHA256.fullmatch(blob) and found != blob:
        raise DamagedError(
            f"{path.name} is damaged: its SHA-256 is {found}, that of the hub is {blob}. Delete "
            f"{path.resolve()} and fetch it again."
        )
    return LockedFile(found, path.stat().st_size, blob if blob != path.name else "")


def commit_of(folder: Path) -> str:
    """The commit of a folder of the cache; "" for other folders."""
    return folder.name if _COMMIT.fullmatch(folder.name) else ""


def _explained(repository: str, name: str, error: Exception) -> Exception:
    """The same failure in words that say what to do."""
    host = re.sub(r"^https?://", "", constants.ENDPOINT)
    what = f"{repository} ({name})"
    if isinstance(error, OfflineModeIsEnabled) or (
        isinstance(error, LocalEntryNotFoundError) and constants.HF_HUB_OFFLINE
    ):
        return offline(what)
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # that the file is not in the cache either is of no interest
    if isinstance(error, GatedRepoError):
        return FetchError(
            f"{repository} asks you to accept its terms first: open https://{host}/{repository}, then log in "
            "here by `hf auth login`."
        )
    if isinstance(error, RepositoryNotFoundError | HFValidationError):
        return FetchError(f"There is no {repository!r} on {host}, or it needs a login (`hf auth login`).")
    if isinstance(error, FileMetadataError):
        return DamagedError(
            f"{host} did not answer like Hugging Face: a web page of a proxy or of a login is in between. "
            f"Open https://{host}/{repository} in a browser to see which."
        )
    if isinstance(error, RemoteEntryNotFoundError):
        return MissingFileError(f"{repository} has no file {name}.")
    if isinstance(error, OSError) and is_full(error):
        return no_space(Path(constants.HF_HUB_CACHE), "The download stopped")
    if "consistency check" in str(error).lower() or type(error).__name__ in _BROKEN_OFF:
        return FetchError(f"The download of {what} was cut off. Give the same command again.")
    if isinstance(error, HfHubHTTPError | XetDownloadError):
        return FetchError(f"{host} refuses {what}: {str(error).strip().splitlines()[0]}. Try again later.")
    if isinstance(error, LocalEntryNotFoundError) or type(error).__module__.startswith(("httpx", "httpcore")):
        return unreachable(host, error)
    return error


def _bar(tell: Tell) -> Any:
    """A class of progress bars, as the library wants them, that draw nothing and tell."""

    class Told(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "file": StringIO(), "disable": False})

        def update(self, n: float | None = 1) -> bool | None:
            shown = super().update(n)
            tell(int(self.n), int(self.total or 0))
            return shown

    return Told
