"""A file by which a server tells other processes on this machine that it is answering a prompt.

The file is in the folder of trained models, which server and batch runs share. The server locks it while a
request is being processed; its modification time is that of the last request.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from segmed.imaging.file_locks import share, try_lock

SIGN = ".answering"


@contextlib.contextmanager
def answering(folder: Path) -> Iterator[None]:
    """While a prompt is answered; without effect if the folder cannot be written.

    Args:
        folder: Folder of trained models.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            sign = stack.enter_context((folder / SIGN).open("a"))
            share(sign)
            os.utime(sign.fileno())
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                os.utime(folder / SIGN)


def seconds_since_answer(folder: Path) -> float:
    """Seconds since a server answered a prompt: 0 while it does, infinite if it never did."""
    try:
        with (folder / SIGN).open("r+") as sign:
            if not try_lock(sign):
                return 0.0
            since = time.time() - os.fstat(sign.fileno()).st_mtime
    except OSError:
        return float("inf")
    # after a jump of the system's time, the age of the sign is not known; nobody is answered now
    return since if since >= 0 else float("inf")
