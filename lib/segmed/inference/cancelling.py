"""Work that stops when nobody waits for it any more.

The device is asked for in turns of one batch of slices; between two turns, the work of a request that was
cancelled ends. What has been encoded until then stays in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_cancelled: ContextVar[Callable[[], bool] | None] = ContextVar("cancelled", default=None)


class Cancelled(Exception):
    """The work was cancelled before its end; nothing was changed."""


@contextmanager
def cancelled_by(condition: Callable[[], bool]) -> Iterator[None]:
    """Within this context, work for the device ends at its next turn once `condition` is true."""
    token = _cancelled.set(condition)
    try:
        yield
    finally:
        _cancelled.reset(token)


def raise_if_cancelled() -> None:
    """Raises Cancelled if the condition of the context, if there is one, is true."""
    condition = _cancelled.get()
    if condition is not None and condition():
        raise Cancelled
