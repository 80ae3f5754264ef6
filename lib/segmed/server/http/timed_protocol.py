"""uvicorn's protocol, whose connections end when a header does not come whole in time; it has no such limit
itself."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import H11Protocol as Protocol
else:
    from uvicorn.protocols.http.auto import AutoHTTPProtocol as Protocol

TIMED = "segmed.server.http.timed_protocol:TimedProtocol"  # as uvicorn wants to be told of it


class TimedProtocol(Protocol):
    """A connection.

    Attributes:
        header_seconds: from the first byte of a request, or the opening of the connection, to the end of its
            header.
    """

    header_seconds = 20.0
    _due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._due = self.loop.call_later(self.header_seconds, self._give_up)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._answering():
            self._stop()
        elif self._due is None:
            self._due = self.loop.call_later(self.header_seconds, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def _answering(self) -> bool:
        """Whether a header has come whole and its answer has not gone out yet."""
        return self.cycle is not None and not self.cycle.response_complete

    def _give_up(self) -> None:
        self._due = None
        ours = self.transport.get_protocol() is self  # not that of a web socket by now
        if ours and not self._answering() and not self.transport.is_closing():
            self.transport.close()

    def _stop(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
