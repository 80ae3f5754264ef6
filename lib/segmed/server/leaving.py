"""Requests whose clients close the connection before the answer: their work for the device ends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event

import anyio.from_thread
from fastapi import Request

from segmed.inference.cancelling import cancelled_by

CLOSED = 499  # status of requests whose client has left, for the log: nobody reads the answer
_EVERY = 0.2  # s between two looks at the connection


@contextmanager
def ends_with(http: Request) -> Iterator[None]:
    """Within this context, on the thread of an endpoint, work for the device ends when the client leaves."""
    left = Event()
    watching = anyio.from_thread.run(_watch, http, left)
    try:
        with cancelled_by(left):
            yield
    finally:
        anyio.from_thread.run_sync(watching.cancel)


async def _watch(http: Request, left: Event) -> asyncio.Task[None]:
    """A task of the event loop that sets `left` when the connection is closed."""

    async def look() -> None:
        while not await http.is_disconnected():
            await asyncio.sleep(_EVERY)
        left.set()

    return asyncio.create_task(look())
