"""Endpoints of the workspace API: their answers state its version, and invalid bodies are refused with one
sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import APIRoute

from segmed.client.version import API_VERSION, HEADER
from segmed.server.http.errors import BadRequest


class SentenceRoute(APIRoute):
    """A route that reports an invalid body by BadRequest instead of a list of pydantic's errors."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        handler = super().get_route_handler()

        async def refused(request: Request) -> Response:
            try:
                answer: Response = await handler(request)
            except RequestValidationError as error:
                raise BadRequest(describe(error.errors()[0])) from error
            answer.headers[HEADER] = API_VERSION
            return answer

        return refused


def describe(error: Any) -> str:
    """One of pydantic's errors as a sentence: where it is in the body, and what is wrong there."""
    where = ".".join(str(part) for part in error["loc"] if part != "body")
    return f"{where or 'The body'} is not usable: {error['msg']}."[:300]
