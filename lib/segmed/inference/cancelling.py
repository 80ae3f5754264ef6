"""Work that stops when nobody waits for it any more.

The device is asked for in turns of one batch of slices; between two turns, the work of a request that was
cancelled ends. What has been encoded until then stays in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Event

_cancelled: ContextVar[Event | None] = ContextVar("cancelled", default=None)


class Cancelled(Exception):
    """The work was cancelled before its end; nothing was changed."""


@contextmanager
def cancelled_by(event: Event) -> Iterator[None]:
    """Within this context, work for the device ends at its next turn once `event` is set."""
    token = _cancelled.set(event)
    try:
        yield
    finally:
        _cancelled.reset(token)


def raise_if_cancelled() -> None:
    """Raises Cancelled if the event of the context, if there is one, is set."""
    event = _cancelled.get()
    if event is not None and event.is_set():
        raise Cancelled
