"""The error that becomes a 4xx."""

from __future__ import annotations

MAY_ONLY_READ = "The server may only read its studies folder, so nothing was saved. Let it write there."


class BadRequest(ValueError):
    """The client has to change something; becomes a 4xx with this text."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class PacsAway(BadRequest):
    """The PACS does not answer now, or with an error of its own; it is worth asking again later."""
