"""No endpoint keeps the event loop from others, and a PACS that is silent keeps nobody for long."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import pkgutil
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import monailabel.endpoints
import pytest
from fastapi.routing import APIRoute
from segmed.server.config.dicomweb_settings import DicomwebSettings
from segmed.server.datastores import dicomweb
from segmed.server.datastores.dicomweb import Pacs
from segmed.server.http.errors import BadRequest
from segmed.server.http.threads import run_in_threads
from segmed.server.pages import proxy

SETTINGS = DicomwebSettings.from_conf({})


def test_endpoints_run_on_threads() -> None:
    run_in_threads()
    found = []
    for module in pkgutil.iter_modules(monailabel.endpoints.__path__):
        router = getattr(importlib.import_module(f"monailabel.endpoints.{module.name}"), "router", None)
        found += [route for route in getattr(router, "routes", ()) if isinstance(route, APIRoute)]
    assert len(found) > 30
    assert [route.path for route in found if inspect.iscoroutinefunction(route.endpoint)] == []
    ours = [route for route in proxy.router.routes if isinstance(route, APIRoute)]
    assert all(inspect.iscoroutinefunction(route.endpoint) for route in ours)  # it awaits what it does


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept: list[socket.socket] = []

        def take() -> None:
            while True:
                try:
                    kept.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=take, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/dicom-web"
        for connection in kept:
            connection.close()


def test_a_silent_pacs_is_asked_less_and_less_often(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicomweb, "_SEARCH", 0.2)
    monkeypatch.setattr(dicomweb, "_ASK_AGAIN", 0.5)
    pacs = Pacs(silent, SETTINGS)
    waits = []
    for _ in range(3):
        with pytest.raises(BadRequest, match="does not answer in time"):
            pacs.find_series({})
        waits.append(pacs._ask_again - time.monotonic())
        asked = pacs._ask_again
        with pytest.raises(BadRequest, match="does not answer in time"):
            pacs.find_series({})
        assert pacs._ask_again == asked  # it was not asked
        time.sleep(max(0.0, asked - time.monotonic()))
    assert waits[0] < 0.5 < waits[1] < 1.0 < waits[2]


def test_a_silent_pacs_is_not_asked_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicomweb, "_SEARCH", 0.3)
    asked = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def take() -> None:
            with contextlib.suppress(OSError):
                while True:
                    asked.append(server.accept()[0])

        threading.Thread(target=take, daemon=True).start()
        with pytest.raises(BadRequest, match="does not answer in time"):
            Pacs(f"http://127.0.0.1:{server.getsockname()[1]}/dicom-web", SETTINGS).find_series({})
        time.sleep(0.5)
    assert len(asked) == 1
    asked[0].close()


@pytest.mark.parametrize("elsewhere", [True, False])
def test_a_redirect_to_another_server_is_not_followed(elsewhere: bool) -> None:
    asked: list[str] = []

    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Type", "application/dicom+json")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"[]")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Other) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()

        class First(Other):
            def do_GET(self) -> None:
                if self.path.startswith("/moved"):
                    super().do_GET()
                    return
                port = other.server_port if elsewhere else self.server.server_address[1]
                self.send_response(302)
                self.send_header("Location", f"http://127.0.0.1:{port}/moved/series")
                self.send_header("Content-Length", "0")
                self.end_headers()

        with ThreadingHTTPServer(("127.0.0.1", 0), First) as first:
            threading.Thread(target=first.serve_forever, daemon=True).start()
            pacs = Pacs(f"http://127.0.0.1:{first.server_port}/dicom-web", SETTINGS)
            if elsewhere:
                with pytest.raises(BadRequest, match="another server"):
                    pacs.find_series({})
                assert asked == []
            else:
                assert pacs.find_series({}) == []
                assert asked == ["/moved/series"]
            first.shutdown()
        other.shutdown()
