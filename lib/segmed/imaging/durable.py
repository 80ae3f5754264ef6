"""Files that are written completely or not at all, even when the process is killed or the power fails."""

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
    """A temporary file in the folder of `path` that replaces it on success and is removed on failure.

    Args:
        path: Path of the file.
        extension: Extension of the temporary file; "" for that of `path`.
        sync: Whether to flush the file to the disk before it replaces `path`.
        private: Whether only the user of this process may read the file.

    Raises:
        OSError: The folder cannot be written; the file at `path` is unchanged.
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
    """Flush a file, or the entries of a folder, to the disk; Windows flushes files only."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep(folder: Path) -> None:
    """Remove incomplete files that killed processes have left in a folder."""
    with contextlib.suppress(OSError):
        for path in folder.glob(f"{_PART}*"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _ABANDONED:
                    path.unlink()
