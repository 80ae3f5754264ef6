"""Errors of the client. Their text is a sentence that can be shown to the user."""

from __future__ import annotations


class SegMedError(Exception):
    """The server refused a request.

    Attributes:
        status: HTTP status of the answer; 0 where there is none.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class NoServerError(SegMedError):
    """Nobody answers at the address, or not in time."""


class NotAllowedError(SegMedError):
    """The user has to log in (401), or the user's role does not allow the request (403)."""


class StaleWorkError(SegMedError):
    """The work on the image has changed elsewhere (409); it was loaded again, and nothing was done."""


class ApiVersionError(SegMedError):
    """The server speaks another major version of the workspace API."""
