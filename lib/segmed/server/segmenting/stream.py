"""Answers that arrive in parts: progress and partial masks while a request is worked on, then its answer.

A client asks for this by `Accept: application/x-ndjson`; all others get the answer alone. Each line is a JSON
object with a key `event`:

- `progress`: `done` slices of at most `most`, `seconds` so far and at most `left` to go, and `changes`,
  rectangles with the values of `labels` to show meanwhile (`axis`, if it is not 2, is the axis across them).
  A line comes at least every two seconds, so that a client can tell long work from a broken connection.
- `answer`: the answer as other clients get it. Its `changes` also correct what was shown meanwhile.
- `error`: `status` and `detail` of a request that failed after the first line. What was shown meanwhile is
  not valid; the client loads the work again.

Requests that fail at once have a 4xx status as usual. A request whose client is gone is stopped and keeps
what it has found: the user finds it when the page is opened again.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import Request
from fastapi.responses import StreamingResponse
from monailabel.interfaces.utils.app import app_instance

from segmed.server.access.audit import note, note_outcome
from segmed.server.segmenting.jobs import Job, Key

MEDIA_TYPE = "application/x-ndjson"
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # nginx would hold lines back
_AT_ONCE = 0.3  # s in which most requests are answered, or fail with a status of their own
_EVERY = 0.2  # s between two looks at the progress
_SILENT = 2.0  # s after which a line is sent in any case


class _Work:
    """A request on a thread of its own."""

    def __init__(self, run: Callable[[], dict[str, Any]]) -> None:
        self.answer: dict[str, Any] = {}
        self.error: Exception | None = None
        self.ended = threading.Event()
        threading.Thread(target=self._run, args=(run,), name="segmenting", daemon=True).start()

    def _run(self, run: Callable[[], dict[str, Any]]) -> None:
        try:
            self.answer = run()
        except Exception as error:  # told by the request that waits for it
            self.error = error
        finally:
            self.ended.set()


def answered(http: Request, key: Key, run: Callable[[Job], dict[str, Any]]) -> Any:
    """The answer to a request that can be long, in parts if the client asks for them.

    Args:
        http: The request.
        key: User and image, by which the request can be stopped.
        run: Function that does the work and reports to the job.
    """
    app = app_instance()
    watched = MEDIA_TYPE in http.headers.get("accept", "")
    job = Job(app.engine.settings.time_limit, watched)

    def registered() -> dict[str, Any]:
        outcome = "failed"
        try:
            with app.jobs.register(key, job):
                answer = run(job)
            outcome = f"stopped, {answer['stopped']}" if answer.get("stopped") else "answered"
            return answer
        finally:
            note_outcome(http, outcome)  # also where the client has left, or has got its status before

    if not watched:
        return registered()
    note(http, outcome="begun")
    work = _Work(registered)
    work.ended.wait(_AT_ONCE)
    if work.error is not None:
        raise work.error
    return StreamingResponse(_lines(http, work, job), media_type=MEDIA_TYPE, headers=_HEADERS)


async def _lines(http: Request, work: _Work, job: Job) -> AsyncIterator[bytes]:
    silent, before = 0.0, (-1, -1)
    try:
        while not work.ended.is_set():
            news = job.news()
            silent += _EVERY
            if news["changes"] or before != (news["done"], news["most"]) or silent > _SILENT:
                silent, before = 0.0, (news["done"], news["most"])
                yield _line(news)
            await asyncio.sleep(_EVERY)
        if work.error is None:
            yield _line({"event": "answer", **work.answer})
        else:
            yield _line(await _failure(http, work.error))
    finally:
        if not work.ended.is_set():
            job.stop(keep=True)


async def _failure(http: Request, error: Exception) -> dict[str, Any]:
    """The error as the application tells it, with the handlers that give errors their status."""
    handlers = http.app.exception_handlers
    handler = next(handlers[kind] for kind in type(error).__mro__ if kind in handlers)
    response = await handler(http, error)
    return {"event": "error", "status": response.status_code, **json.loads(response.body)}


def _line(told: dict[str, Any]) -> bytes:
    return json.dumps(told).encode() + b"\n"
