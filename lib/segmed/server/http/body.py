"""Bodies of requests, counted and timed while they come in; JSON is read and checked before any endpoint sees
it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from starlette.types import Message, Receive

from segmed.server.http.client_json import MOST_BYTES, read_json
from segmed.server.http.errors import BadRequest

PATIENCE = 30.0  # s
SLOWEST = 16 * 2**10  # bytes a second


class Body:
    """What `receive` gives, up to a limit.

    Args:
        receive: of the server.
        most: bytes that the body may have, whatever its header says.
        patience: s without a byte after which it is given up.
        slowest: bytes a second; after `patience`, a body that comes more slowly on the whole is given up.

    Attributes:
        refused: what is to be answered once the body is too large or slow; the endpoint is told that the
            client has gone.
    """

    def __init__(
        self, receive: Receive, most: int, patience: float = PATIENCE, slowest: float = SLOWEST
    ) -> None:
        self._receive, self._most = receive, most
        self._patience, self._slowest = patience, slowest
        self._count, self._waited, self._whole = 0, 0.0, False
        self._replay: list[Message] = []
        self.refused: BadRequest | None = None

    async def __call__(self) -> Message:
        """The next message."""
        if self._replay:
            return self._replay.pop(0)
        message = await self._in_time()
        self._count += len(message.get("body", b""))
        if self._count > self._most:
            self.refused = BadRequest(
                f"The body of the request is larger than {_size(self._most)}. Send one series at a time.", 413
            )
            return {"type": "http.disconnect"}
        return message

    async def _in_time(self) -> Message:
        """The next message, if the client sends it; only what is waited for it counts, not what an endpoint
        takes."""
        if self._whole:  # what follows is the end of the connection, for which an endpoint may wait long
            return await self._receive()
        left = self._patience + self._count / self._slowest - self._waited
        began = time.monotonic()
        try:
            async with asyncio.timeout(max(0.0, min(left, self._patience))):
                message = await self._receive()
        except TimeoutError:
            self.refused = BadRequest(
                f"The body of the request came too slowly: nothing for {self._patience:.0f} s, or less than "
                f"{self._slowest / 2**10:.0f} KiB a second. Send it again over a better connection.",
                408,
            )
            return {"type": "http.disconnect"}
        self._waited += time.monotonic() - began
        self._whole = not message.get("more_body", False)
        return message

    async def check_json(self) -> None:
        """Read the whole body and keep it for the endpoint.

        Raises:
            BadRequest: it is not usable as JSON, see `read_json`, or too large.
        """
        parts, more = [], True
        while more:
            message = await self()
            if self.refused:
                raise self.refused
            if message["type"] != "http.request":
                self._replay.append(message)
                return
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        body = b"".join(parts)
        if body:
            read_json(body, "The body of the request")
        self._replay.append({"type": "http.request", "body": body, "more_body": False})


def is_json(headers: Mapping[str, str]) -> bool:
    """Whether a body is JSON, or would be taken for it because nothing is said."""
    kind = headers.get("content-type", "").split(";")[0].strip().lower()
    return kind in ("", "application/json") or kind.endswith("+json")


def limit_of(headers: Mapping[str, str], most: int) -> int:
    """Bytes that a body may have."""
    return min(most, MOST_BYTES) if is_json(headers) else most


def _size(count: int) -> str:
    return f"{count >> 30} GiB" if count >= 2**30 else f"{count >> 20} MiB"
