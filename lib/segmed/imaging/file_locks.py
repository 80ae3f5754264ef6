"""Advisory locks on open files, on every system; the system releases them when the file is closed.

Linux and macOS know shared locks (flock). Windows is given exclusive ones only, on the first byte of the
file, which nobody else can read meanwhile.
"""

from __future__ import annotations

from typing import IO, Any

from filelock import lock_descriptor, unlock_descriptor

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows
    fcntl = None  # type: ignore[assignment]


def lock(file: IO[Any]) -> None:
    """Wait until this file is locked by nobody else, and lock it.

    Raises:
        OSError: the file system has no locks.
    """
    lock_descriptor(file.fileno())


def try_lock(file: IO[Any]) -> bool:
    """Lock this file unless somebody else has; a shared lock of ours is lost in either case.

    Raises:
        OSError: the file system has no locks.
    """
    return lock_descriptor(file.fileno(), blocking=False)


def share(file: IO[Any]) -> None:
    """Wait until nobody has locked this file alone, and keep others from doing so; on Windows, only wait.

    Raises:
        OSError: the file system has no locks.
    """
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_SH)
    else:
        lock_descriptor(file.fileno())
        unlock_descriptor(file.fileno())
