"""The DICOMweb proxy: what it lets through, and how it forwards."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from monailabel.config import settings
from segmed.server import proxy
from segmed.server.requests import BadRequest

STUDY = "studies/1.2.3"


@pytest.mark.parametrize(
    "path",
    [
        "studies",
        "studies/",
        "series",
        STUDY,
        f"{STUDY}/series",
        f"{STUDY}/metadata",
        f"{STUDY}/series/4.5/metadata",
        f"{STUDY}/series/4.5/instances",
        f"{STUDY}/series/4.5/instances/6.7/frames/1",
        f"{STUDY}/series/4.5/instances/6.7/frames/1,2,3",
        f"{STUDY}/series/4.5/instances/6.7/rendered",
        f"{STUDY}/series/4.5/thumbnail",
        f"{STUDY}/series/4.5/instances/6.7/bulkdata/7FE00010",
    ],
)
def test_reads_pass(path: str) -> None:
    assert proxy.upstream_path("qido", path) == path.rstrip("/")


@pytest.mark.parametrize(
    "path",
    [
        "",
        "system",
        "../system",
        "studies/../../system",
        "studies/1..2",
        "tools/lookup",
        "studies/1.2.3/series/4.5/instances/6.7/frames/../../x",
        "studies/abc",
        "studies?x=1",
        "studies/1.2.3/archive",
        "http://elsewhere/studies",
    ],
)
def test_everything_else_is_refused(path: str) -> None:
    with pytest.raises(BadRequest, match="Only DICOMweb reads"):
        proxy.upstream_path("wado", path)


class Pacs(BaseHTTPRequestHandler):
    """Answers with what it was asked."""

    def do_GET(self) -> None:
        body = f"{self.path} {self.headers.get('accept')} {self.headers.get('cookie')}".encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/dicom+json")
        self.send_header("Set-Cookie", "secret=1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    pacs = ThreadingHTTPServer(("127.0.0.1", 0), Pacs)
    threading.Thread(target=pacs.serve_forever, daemon=True).start()
    monkeypatch.setattr(settings, "MONAI_LABEL_STUDIES", f"http://127.0.0.1:{pacs.server_port}/dicom-web")
    monkeypatch.setattr(proxy, "_client", None)
    app = FastAPI()
    app.include_router(proxy.router)
    yield TestClient(app, raise_server_exceptions=True)
    pacs.shutdown()


def test_queries_are_forwarded_and_cookies_are_not(client: TestClient) -> None:
    answer = client.get(
        "/proxy/dicom/qido/studies?PatientName=A*&limit=5",
        headers={"accept": "application/dicom+json", "cookie": "session=mine"},
    )
    assert answer.text == "/dicom-web/studies?PatientName=A*&limit=5 application/dicom+json None"
    assert answer.headers["content-type"] == "application/dicom+json"
    assert "set-cookie" not in answer.headers


def test_address_without_a_service(client: TestClient) -> None:
    assert client.get(f"/proxy/dicom/{STUDY}/metadata").text.startswith(f"/dicom-web/{STUDY}/metadata")


def test_a_silent_pacs_is_told(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "MONAI_LABEL_STUDIES", "http://127.0.0.1:9/dicom-web")
    with pytest.raises(BadRequest, match="does not answer") as refused:
        client.get("/proxy/dicom/qido/studies")
    assert refused.value.status == 424
