"""Returns free memory that the C library keeps; a server would grow with each version that it serves."""

from __future__ import annotations

import ctypes
import functools
import gc
from collections.abc import Callable


def return_free_memory() -> None:
    """Return memory that is not used any more to the operating system.

    Weights and scores of a former version are freed in pieces that lie between others in use, so that glibc
    keeps them. Other C libraries return memory on their own; nothing happens there.
    """
    gc.collect()
    if (trim := _trim()) is not None:
        trim(0)


@functools.cache
def _trim() -> Callable[[int], int] | None:
    """`malloc_trim` of glibc, or None with another C library."""
    try:
        trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    except (OSError, TypeError):  # Windows knows no library without a name
        return None
    return trim
