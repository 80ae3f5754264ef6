"""What a client learns of the server's disk."""

from __future__ import annotations

import asyncio
import errno
import json

import pytest
from segmed.server.asgi import _disk
from starlette.requests import Request

REQUEST = Request(
    {"type": "http", "method": "PUT", "path": "/datastore/label", "headers": [], "query_string": b""}
)


@pytest.mark.parametrize(
    ("number", "status", "told"),
    [
        (errno.ENOSPC, 507, "disk is full"),
        (errno.EDQUOT, 507, "disk is full"),
        (errno.EFBIG, 507, "disk is full"),
        (errno.EROFS, 403, "may only read"),
        (errno.EACCES, 403, "may only read"),
        (errno.EIO, 500, "unexpected"),
    ],
)
def test_the_answer_tells_what_to_do(number: int, status: int, told: str) -> None:
    answer = asyncio.run(_disk(REQUEST, OSError(number, "reason", "/home/secret/labels")))
    assert answer.status_code == status
    sentence = json.loads(bytes(answer.body))["detail"]
    assert told in sentence
    assert "secret" not in sentence
