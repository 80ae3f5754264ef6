"""Clients that send drop by drop are cut off; slow ones are waited for."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from running import free_port
from segmed.server.http.body import Body
from segmed.server.http.guard import Guard
from segmed.server.http.timed_protocol import TIMED, TimedProtocol
from segmed.server.serve import HTTP_PROTOCOLS
from uvicorn.importer import import_from_string

HEAD = b"POST /x HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/plain\r\n"


class _Hasty(TimedProtocol):
    header_seconds = 1.0


async def _app(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the length of the body."""
    count, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError
        count, more = count + len(message.get("body", b"")), message.get("more_body", False)
    body = str(count).encode()
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]}
    )
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A server with short patience."""
    found = free_port()
    before = Body.__init__.__defaults__
    Body.__init__.__defaults__ = (1.0, 1000.0)
    config = uvicorn.Config(Guard(_app), port=found, http=_Hasty, log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield found
    server.should_exit = True
    thread.join(20)
    Body.__init__.__defaults__ = before


def _talk(port: int, *pieces: bytes, pause: float = 0.0) -> bytes:
    """What the server says until it closes the connection, or for 30 s after the last piece."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as line:
        said = b""
        for piece in pieces:
            try:
                line.sendall(piece)
            except OSError:  # it has hung up
                break
            time.sleep(pause)
        try:
            while part := line.recv(4096):
                said += part
        except ConnectionResetError:
            pass
        return said


def test_a_header_that_does_not_end_is_given_up(port: int) -> None:
    assert _talk(port) == b""
    assert _talk(port, *[b"%c" % letter for letter in HEAD], pause=0.1) == b""


def test_so_is_a_second_one_on_the_same_connection(port: int) -> None:
    said = _talk(port, HEAD + b"Content-Length: 2\r\n\r\nab", *[b"%c" % letter for letter in HEAD], pause=0.1)
    assert said.startswith(b"HTTP/1.1 200")
    assert said.count(b"HTTP/1.1") == 1


def test_a_body_that_drips_is_given_up(port: int) -> None:
    said = _talk(port, HEAD + b"Content-Length: 100\r\n\r\n", *[b"a"] * 40, pause=0.1)
    assert said.startswith(b"HTTP/1.1 408")
    assert b"connection: close" in said.lower()
    assert "better connection" in json.loads(said.partition(b"\r\n\r\n")[2])["detail"]


def test_so_is_one_that_stops(port: int) -> None:
    assert _talk(port, HEAD + b"Content-Length: 100000\r\n\r\n", b"a" * 50_000).startswith(b"HTTP/1.1 408")


def test_json_that_drips_is_given_up(port: int) -> None:
    head = HEAD.replace(b"text/plain", b"application/json")
    assert _talk(port, head + b"Content-Length: 100\r\n\r\n", b"{").startswith(b"HTTP/1.1 408")


def test_a_slow_upload_passes(port: int) -> None:
    pieces = [b"a" * 1000] * 20  # twice as long as the patience, at ten times the slowest rate
    said = _talk(port, HEAD + b"Connection: close\r\nContent-Length: 20000\r\n\r\n", *pieces, pause=0.1)
    assert said.startswith(b"HTTP/1.1 200")
    assert said.endswith(b"20000")


def test_the_time_of_an_endpoint_does_not_count() -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"a", "more_body": True}

    async def read() -> Body:
        body = Body(receive, 100, patience=0.2, slowest=1e9)
        await body()
        await asyncio.sleep(0.5)
        assert (await body())["type"] == "http.request"
        return body

    assert asyncio.run(read()).refused is None


def test_after_the_body_an_endpoint_may_wait_for_the_end() -> None:
    sent = [{"type": "http.request", "body": b"a", "more_body": False}]

    async def receive() -> dict[str, Any]:
        if sent:
            return sent.pop()
        await asyncio.sleep(0.5)
        return {"type": "http.disconnect"}

    async def read() -> Body:
        body = Body(receive, 100, patience=0.1)
        assert [(await body())["type"], (await body())["type"]] == ["http.request", "http.disconnect"]
        return body

    assert asyncio.run(read()).refused is None


def test_a_server_is_started_with_it() -> None:
    assert "auto" in HTTP_PROTOCOLS
    assert import_from_string(TIMED) is TimedProtocol
