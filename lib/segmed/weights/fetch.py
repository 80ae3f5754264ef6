"""Fetch and verify published weights."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from segmed.weights import hub
from segmed.weights.archive import download_member
from segmed.weights.contents import check_file, sha256_of
from segmed.weights.download import Tell, download
from segmed.weights.errors import DamagedError
from segmed.weights.lock import Lock, Locked, LockedFile
from segmed.weights.lookup import fetched, files_of
from segmed.weights.places import weights_folder
from segmed.weights.table import Published


def fetch(weights: Published, tell: Tell | None = None, update: bool = False) -> Path:
    """Fetch weights and record their checksums; weights that are on this machine are verified instead.

    Where no checksum was published, the first download is trusted, and later ones must be identical.

    Args:
        weights: The published weights.
        tell: Function that is told the progress.
        update: Whether to fetch the newest version and to accept that it differs from the one fetched before.

    Returns:
        The file, or the folder if there are several files.

    Raises:
        ValueError: The weights must be downloaded by hand and are not there, or the lock file is damaged.
        FetchError: They could not be fetched.
        DamagedError: They are not the published ones, or not those that were fetched before.
    """
    lock, path = Lock(weights_folder()), fetched(weights)
    if weights.page and (path is None or update):
        raise ValueError(
            f"{weights.name} has to be downloaded by hand: open {weights.page} in a browser and save "
            f"{weights.files[0]} in {weights_folder()}. Then give the same command again, which notes its "
            "checksum."
        )
    before = lock.get(weights.name)
    if path is not None and not update:
        found = {name: _checked(weights, file) for name, file in files_of(weights, path).items()}
    elif weights.repository:
        revision = before.revision if before and not update else ""
        folder = hub.fetch_files(weights.repository, weights.files, tell, revision)
        path = folder if len(weights.files) > 1 else folder / weights.files[0]
        found = {name: _checked(weights, file) for name, file in files_of(weights, path).items()}
    else:
        path = weights_folder() / weights.files[0]
        found = {weights.files[0]: _download(weights, path, tell)}
    if before and not update:
        _compare(weights.name, before, found)
    if not before or update:
        revision = hub.commit_of(path if path.is_dir() else path.parent) if weights.repository else ""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        lock.record(weights.name, Locked(weights.source, revision, now, found))
    return path


def verify(weights: Published) -> str:
    """Read fetched weights again and compare them with all checksums that are known.

    Returns:
        What they were compared with, for people.

    Raises:
        FileNotFoundError: they have not been fetched.
        DamagedError: they differ.
        ValueError: the lock file is damaged.
    """
    path = fetched(weights)
    if path is None:
        raise FileNotFoundError(
            f"The weights {weights.name!r} are not on this machine. Fetch them: segmed weights get "
            f"{weights.name}"
        )
    found = {name: _checked(weights, file) for name, file in files_of(weights, path).items()}
    against = ["the published SHA-256"] if weights.sha256 else []
    if any(file.etag == file.sha256 for file in found.values()):
        against.append("the SHA-256 of the hub")
    if locked := Lock(weights_folder()).get(weights.name):
        _compare(weights.name, locked, found)
        against.append(f"the first download ({locked.fetched[:10]})")
    return " and ".join(against) or "nothing: no checksum is known; `segmed weights get` notes one"


def _download(weights: Published, path: Path, tell: Tell | None) -> LockedFile:
    if weights.member:
        return download_member(weights.url, weights.member, path, weights.sha256, tell)
    return download(weights.url, path, weights.sha256, tell)


def _checked(weights: Published, file: Path) -> LockedFile:
    try:
        if file.suffix != ".json":
            check_file(file)
    except ValueError as error:
        raise DamagedError(str(error)) from error
    if weights.repository:
        return hub.check_blob(file)
    found = LockedFile(sha256_of(file), file.stat().st_size)
    if weights.sha256 and found.sha256 != weights.sha256:
        raise DamagedError(
            f"{file} is not the published file: its SHA-256 is {found.sha256}, expected was "
            f"{weights.sha256}. Delete it and fetch it again: segmed weights get {weights.name}"
        )
    return found


def _compare(name: str, before: Locked, found: Mapping[str, LockedFile]) -> None:
    """Raises DamagedError where a file is not the one that was fetched first."""
    for file, now in found.items():
        first = before.files.get(file)
        if first and first.sha256 != now.sha256:
            raise DamagedError(
                f"{file} of {name} is not the one that was fetched on {before.fetched[:10]}: its SHA-256 is "
                f"{now.sha256}, then it was {first.sha256}. If its authors have published a new version, "
                f"accept it: segmed weights get {name} --update. Otherwise it is damaged."
            )
