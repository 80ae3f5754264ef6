"""A server of single files on 127.0.0.1 that can be told to misbehave."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FileServer:
    """What is served, how, and what was asked for.

    Attributes:
        content: of every address.
        etag: with its quotes; "" for none.
        cut: bytes after which the connection is closed, in each answer; None for whole answers.
        status: instead of 200.
        kind: content type.
        headers: in addition.
        ranges: whether `Range` is understood.
        asked: method, path and `Range` of each request.
    """

    content: bytes = b""
    etag: str = '"one"'
    cut: int | None = None
    status: int = 200
    kind: str = "application/octet-stream"
    headers: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    url: str = ""


@contextmanager
def file_server() -> Iterator[FileServer]:
    """Serve until the context ends."""
    served = FileServer()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(False)

        def do_GET(self) -> None:
            self._answer(True)

        def _answer(self, body: bool) -> None:
            wanted = self.headers.get("Range", "")
            served.asked.append((self.command, self.path, wanted))
            begin, status, total = 0, served.status, len(served.content)
            match = re.match(r"bytes=(\d+)-", wanted)
            if match and served.ranges and self.headers.get("If-Range", served.etag) == served.etag:
                begin, status = int(match[1]), 206
                if begin >= total:
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{total}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
            self.send_response(status)
            self.send_header("Content-Type", served.kind)
            self.send_header("Content-Length", str(total - begin))
            if status == 206:
                self.send_header("Content-Range", f"bytes {begin}-{total - 1}/{total}")
            if served.etag:
                self.send_header("ETag", served.etag)
            for name, value in served.headers.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                end = total if served.cut is None else min(total, begin + served.cut)
                self.wfile.write(served.content[begin:end])

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
