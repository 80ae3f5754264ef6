"""Requests whose clients close the connection before the answer: their work for the device ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import anyio.from_thread
from fastapi import Request

from segmed.inference.cancelling import cancelled_by

CLOSED = 499  # status of requests whose client has left, for the log: nobody reads the answer
_EVERY = 0.2  # s between two looks at the connection


@contextmanager
def ends_with(http: Request) -> Iterator[None]:
    """Within this context, on the thread of an endpoint, work for the device ends when the client leaves."""
    looked, left = time.monotonic(), False

    def gone() -> bool:
        nonlocal looked, left
        if not left and time.monotonic() - looked > _EVERY:
            looked = time.monotonic()
            left = anyio.from_thread.run(http.is_disconnected)
        return left

    with cancelled_by(gone):
        yield
