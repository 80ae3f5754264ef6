"""What stands between a server and its PACS and spoils the answers: late, cut off, errors, pages of HTML."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import httpx
from orthanc import Pacs

_HTML = b"<html><body>Welcome to the router of the hospital</body></html>"
_PIECES, _BETWEEN = 6, 0.3  # of an answer that comes slowly; s


class FaultyPacs(ThreadingHTTPServer):
    """Forwards the requests to a PACS.

    Args:
        pacs: The PACS behind it.

    Attributes:
        fault: `slow`, `cut`, `error` or `html`; "" for none.
        where: Part of the paths that have the fault; "" for all.
        spoiled: Number of answers that had one.
    """

    daemon_threads = True

    def __init__(self, pacs: Pacs) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.fault = self.where = ""
        self.spoiled = 0
        self.behind = httpx.Client(base_url=pacs.root, timeout=60)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Of DICOMweb."""
        return f"http://127.0.0.1:{self.server_address[1]}/dicom-web"

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        self.behind.close()


class _Handler(BaseHTTPRequestHandler):
    server: FaultyPacs

    def do_GET(self) -> None:
        fault = self.server.fault if self.server.where in urlsplit(self.path).path else ""
        self.server.spoiled += bool(fault)
        if fault in ("html", "error"):
            self._send(200 if fault == "html" else 500, "text/html", _HTML)
            return
        asked = {"Accept": self.headers.get("Accept", "*/*")}
        answer = self.server.behind.get(self.path, headers=asked)
        self._send(answer.status_code, answer.headers.get("Content-Type", ""), answer.content, fault)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        kept = {name: self.headers[name] for name in ("Content-Type", "Accept") if self.headers[name]}
        answer = self.server.behind.post(self.path, content=body, headers=kept)
        self._send(answer.status_code, answer.headers.get("Content-Type", ""), answer.content)

    def _send(self, status: int, kind: str, body: bytes, fault: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if fault == "cut":
            self.wfile.write(body[: len(body) // 2])
        elif fault == "slow":
            step = len(body) // _PIECES + 1
            for start in range(0, len(body), step):
                self.wfile.write(body[start : start + step])
                self.wfile.flush()
                time.sleep(_BETWEEN)
        else:
            self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass
