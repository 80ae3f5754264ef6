"""Errors of SQLite files in words that say what can be done."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_REMEDIES = {
    sqlite3.SQLITE_FULL: (errno.ENOSPC, "the disk is full; make room"),
    sqlite3.SQLITE_READONLY: (errno.EROFS, "it cannot be written; give this user the right to"),
    sqlite3.SQLITE_CANTOPEN: (errno.EACCES, "it cannot be opened; check the folder and its rights"),
    sqlite3.SQLITE_IOERR: (errno.EIO, "the disk does not read or write; check it"),
    sqlite3.SQLITE_BUSY: (errno.EBUSY, "another process held it for too long; try again"),
}


@contextmanager
def explained(path: Path, what: str) -> Iterator[None]:
    """Turn errors of the operating system that SQLite reports into OSError with a remedy; others stay.

    Args:
        path: Path of the file.
        what: Beginning of the sentence for the user, such as "The manifest cannot be used".

    Raises:
        OSError: The file cannot be read or written.
    """
    try:
        yield
    except sqlite3.OperationalError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code not in _REMEDIES:
            raise
        number, remedy = _REMEDIES[code]
        raise OSError(number, f"{what}: {remedy}", str(path)) from error
