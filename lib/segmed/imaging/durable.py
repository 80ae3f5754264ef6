"""Files that are there as a whole or not at all, also when a process is killed, a disk is full or the power is cut."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

_PART = ".part-"  # begins the names of files that are being written
_ABANDONED = 3600.0  # s after which such a file is left over from a process that was killed


@contextlib.contextmanager
def appear_whole(path: Path, extension: str = "", sync: bool = True, private: bool = False) -> Iterator[Path]:
    """A temporary name in the folder of `path` that takes its place on success and vanishes on failure.

    Args:
        path: of the file.
        extension: that the temporary name ends in; "" for that of `path`.
        sync: whether the file is on the disk, and not only in the memory of the system, before it takes its place.
        private: whether only the user of this process may read it.

    Raises:
        OSError: the folder cannot be written; what was at `path` is as it was.
    """
    # not by tempfile, whose files others may not read whatever the umask says
    part = path.with_name(f"{_PART}{secrets.token_hex(8)}{extension or path.suffix}")
    try:
        if private:
            os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        yield part
        if sync:
            flush(part)
        part.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    if sync:
        flush(path.parent)


def flush(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk before going on."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep(folder: Path) -> None:
    """Remove what processes that were killed left half written in a folder."""
    with contextlib.suppress(OSError):
        for path in folder.glob(f"{_PART}*"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _ABANDONED:
                    path.unlink()
