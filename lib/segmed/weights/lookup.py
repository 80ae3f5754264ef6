"""The files and folders of published weights on this machine."""

from __future__ import annotations

from pathlib import Path

from segmed.weights import hub
from segmed.weights.lock import Lock, Locked
from segmed.weights.places import weights_folder
from segmed.weights.table import Published, find


def fetched(weights: Published) -> Path | None:
    """The file of weights, or the folder if there are several files; None if they were not fetched.

    Raises:
        ValueError: The lock file is damaged.
    """
    return _placed(weights, Lock(weights_folder()).get(weights.name))


def resolve(name: str) -> Path:
    """The file or folder of published weights.

    Raises:
        ValueError: There is no such name, SegMed cannot load the weights, or the lock file is damaged.
        FileNotFoundError: They have not been fetched.
    """
    weights = find(name)
    if not weights.kind:
        raise ValueError(
            f"SegMed cannot load {name}: {weights.good_for}. `segmed weights list` shows what it can load."
        )
    path = fetched(weights)
    if path is None:
        raise FileNotFoundError(
            f"The weights {name!r} are not on this machine. Fetch them: segmed weights get {name}"
        )
    return path


def files_of(weights: Published, path: Path) -> dict[str, Path]:
    """Paths of the files of fetched weights by name."""
    return {name: path / name for name in weights.files} if path.is_dir() else {weights.files[0]: path}


def _placed(weights: Published, locked: Locked | None) -> Path | None:
    if not weights.repository:
        path = weights_folder() / weights.files[0]
        return path if path.is_file() else None
    folder = hub.cached(weights.repository, weights.files, locked.revision if locked else "")
    if folder is None:
        return None
    return folder if len(weights.files) > 1 else folder / weights.files[0]
