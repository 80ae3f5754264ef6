"""The journal of unsaved work: a file per user and image, written before the answer, read after a restart."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import threading
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segmed.data.checksums import file_checksum
from segmed.imaging.durable import appear_whole
from segmed.server.workspace.workspace import Workspace

logger = logging.getLogger(__name__)

Key = tuple[str, ...]
JOURNAL_BYTES = 512 * 2**20
_ENDING = ".work"
_FORMAT = 1
_LONGEST_HEAD = 4 * 2**20


@dataclass(frozen=True)
class _File:
    key: Key
    size: int


class Journal:
    """Files of unsaved work, readable by their owner only; the oldest files are removed first.

    Args:
        folder: Folder of the files, which is created when it is needed.
        max_bytes: Largest size of all files in bytes.
    """

    def __init__(self, folder: Path, max_bytes: int = JOURNAL_BYTES) -> None:
        self.folder, self._max_bytes = folder, max_bytes
        self._guard = threading.Lock()
        self._files: OrderedDict[Path, _File] = OrderedDict()
        self._complained = False
        self._behind: set[Path] = set()  # files of users whose newest work is in memory only
        for path in self._found():
            try:
                with path.open("rb") as file:
                    self._files[path] = _File(
                        tuple(_head(file.readline(_LONGEST_HEAD))["key"]), path.stat().st_size
                    )
            except (OSError, ValueError) as error:
                logger.warning("A file of unsaved work cannot be read and is left alone: %s", error)

    def keys(self) -> list[Key]:
        """Users and images with unsaved work on disk."""
        with self._guard:
            return [file.key for file in self._files.values()]

    def holds(self, key: Key) -> bool:
        """Whether the work of this user on this image, as it was written last, is on disk."""
        with self._guard:
            return self._path(key) in self._files and self._path(key) not in self._behind

    def behind(self, key: Key) -> bool:
        """Whether the newest work of this user on this image could not be written; older work may be on
        disk."""
        with self._guard:
            return self._path(key) in self._behind

    def write(self, key: Key, work: Workspace) -> bool:
        """Write the present work in place of the previous file.

        Args:
            key: User and image.
            work: Workspace, whose lock is held.

        Returns:
            Whether the work is on disk now.
        """
        slices = work.packed()
        facts = work.facts()
        head = {"format": _FORMAT, "key": key, "identity": work.identity, **facts}
        head["slices"] = [[k, len(data), zlib.crc32(data)] for k, data in slices.items()]
        line = json.dumps(head).encode() + b"\n"
        size = len(line) + sum(map(len, slices.values()))
        if size > self._max_bytes or len(line) > _LONGEST_HEAD:
            self.drop(key)
            return False
        path = self._path(key)
        try:
            _replace(path, [line, *slices.values()])
        except OSError as error:
            if not self._complained:
                logger.warning(
                    "Unsaved work is kept in memory only: %s cannot be written (%s)", self.folder, error
                )
                self._complained = True
            with self._guard:  # what was written before is better than nothing after a crash
                self._behind.add(path)
            return False
        with self._guard:
            self._behind.discard(path)
            self._files.pop(path, None)
            self._files[path] = _File(key, size)
            self._make_room()
        return True

    def read(self, key: Key, into: Workspace) -> bool | None:
        """Restore work from disk.

        Args:
            key: User and image.
            into: New workspace of the image's shape and identity; work on another image is not restored.

        Returns:
            True if the work was restored, False if it was on another image of this name or is damaged, None
            if there is none.
        """
        with self._guard:
            if self._path(key) not in self._files:
                return None
        try:
            content = self._path(key).read_bytes()
            line, _, body = content.partition(b"\n")
            head = _head(line)
            if (
                head["identity"] != into.identity
                or tuple(head["shape"]) != into.shape
                or tuple(head["key"]) != key
            ):
                return False
            slices, start = {}, 0
            for k, size, check in head["slices"]:
                slices[int(k)] = body[start : start + size]
                start += size
                if zlib.crc32(slices[int(k)]) != check:
                    raise ValueError(f"slice {k} is damaged")
            into.restore(head, slices)
        except (OSError, ValueError, KeyError, TypeError, zlib.error) as error:
            logger.warning("Unsaved work cannot be brought back: %s", error)
            return False
        return True

    def drop(self, key: Key) -> None:
        """Delete the work of a user on an image, which is saved or discarded."""
        path = self._path(key)
        with self._guard:
            self._behind.discard(path)
            if self._files.pop(path, None) is not None:
                _remove(path)

    def forget(self, image: str) -> None:
        """Delete all users' work on an image id that now belongs to another image."""
        for key in self.keys():
            if key[-1] == image:
                self.drop(key)

    def _path(self, key: Key) -> Path:
        name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:40]
        return self.folder / f"{name}{_ENDING}"

    def _found(self) -> list[Path]:
        """Files of earlier server runs, oldest first; incomplete files are removed."""
        with contextlib.suppress(OSError):
            for half in self.folder.glob("*.part"):
                _remove(half)
            return sorted(self.folder.glob(f"*{_ENDING}"), key=lambda path: path.stat().st_mtime_ns)
        return []

    def _make_room(self) -> None:
        total = sum(file.size for file in self._files.values())
        while total > self._max_bytes and len(self._files) > 1:
            path, file = self._files.popitem(last=False)
            total -= file.size
            _remove(path)
            logger.warning("A file of unsaved work had to make room for newer work.")


def image_identity(path: Path) -> str:
    """A checksum of an image's content, independent of its path and time."""
    if path.is_dir():  # a DICOM series, which its UID names already
        parts = sorted((part.name, part.stat().st_size) for part in path.iterdir() if part.is_file())
        return hashlib.sha256(repr(parts).encode()).hexdigest()
    return file_checksum(path)


def _head(line: bytes) -> dict[str, Any]:
    """The first line of a file. Raises ValueError if the file is not a journal."""
    head = json.loads(line)
    if not isinstance(head, dict) or head.get("format") != _FORMAT or not isinstance(head.get("key"), list):
        raise ValueError("it was written by another version")
    return head


def _replace(path: Path, parts: list[bytes]) -> None:
    """Write a file completely or not at all, even if the power fails. Raises OSError."""
    if not path.parents[2].is_dir():  # the studies, which are not made again
        raise FileNotFoundError(2, "the studies folder is missing", str(path.parents[2]))
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with appear_whole(path, private=True) as part, part.open("wb") as file:
        file.writelines(parts)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
