"""The DICOMweb proxy: what it lets through, and how it forwards."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from monailabel.config import settings
from segmed.server.http.errors import BadRequest
from segmed.server.pages import proxy
from starlette.requests import ClientDisconnect
from starlette.types import Message

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
        f"{STUDY}/series/4.5/instances/6.7/frames/1/rendered",
        f"{STUDY}/series/4.5/instances/6.7/bulkdata/7FE00010",
        f"{STUDY}/series/4.5/instances/6.7/bulkdata/00091001/1/00091002",
        f"{STUDY}/bulkdata/a1-b2_c3.d4",
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
        "studies/metadata",
        "studies/1.2.3\n",
        "studies/1.2.3/metadata/../../../system",
        "studies/1.2.3/bulkdata/../../../system",
        "studies/1.2.3/bulkdata/.hidden",
        "studies/1.2.3/bulkdata/%2e%2e/system",
        "studies/1.2.3/bulkdata//x",
    ],
)
def test_everything_else_is_refused(path: str) -> None:
    with pytest.raises(BadRequest, match="Only DICOMweb reads"):
        proxy.upstream_path("wado", path)


def test_searches_and_retrievals_have_prefixes_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """OHIF searches for series at the address for retrieving."""
    monkeypatch.setattr(settings, "MONAI_LABEL_QIDO_PREFIX", "search")
    monkeypatch.setattr(settings, "MONAI_LABEL_WADO_PREFIX", "get")
    assert proxy.upstream_path("wado", f"{STUDY}/series") == f"search/{STUDY}/series"
    assert proxy.upstream_path("qido", "studies") == "search/studies"
    assert proxy.upstream_path("wado", f"{STUDY}/series/4.5/metadata") == f"get/{STUDY}/series/4.5/metadata"
    assert proxy.upstream_path("wado", f"{STUDY}/series/4.5") == f"get/{STUDY}/series/4.5"
    assert proxy.upstream_path("", "studies") == "studies"


class Pacs(BaseHTTPRequestHandler):
    """Answers with what it was asked."""

    def do_GET(self) -> None:
        if "SendMe" in self.path:
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.1:9/elsewhere")
            self.end_headers()
            return
        if "Refuse" in self.path:
            self.send_error(401)
            return
        seen = [self.path, *(self.headers.get(name) for name in ("accept", "cookie", "authorization"))]
        body = " ".join(map(str, seen)).encode()
        self.send_response(200)
        kind = "text/html; charset=utf-8" if "Page" in self.path else "application/dicom+json"
        self.send_header("Content-Type", kind)
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
    app = FastAPI()
    app.include_router(proxy.router)
    yield TestClient(app, raise_server_exceptions=True)
    pacs.shutdown()


def test_queries_are_forwarded_and_cookies_are_not(client: TestClient) -> None:
    answer = client.get(
        "/proxy/dicom/qido/studies?PatientName=A*&limit=5",
        headers={"accept": "application/dicom+json", "cookie": "session=mine"},
    )
    assert answer.text == "/dicom-web/studies?PatientName=A*&limit=5 application/dicom+json None None"
    assert answer.headers["content-type"] == "application/dicom+json"
    assert "set-cookie" not in answer.headers


def test_a_query_reaches_the_pacs_as_it_was_written(client: TestClient) -> None:
    """OHIF repeats keys, escapes commas and carets, and asks for fields by number."""
    query = "00100020=a%5Eb&includefield=00081030%2C00080060&includefield=all&limit=101&fuzzymatching=false"
    assert client.get(f"/proxy/dicom/qido/studies?{query}").text.startswith(f"/dicom-web/studies?{query} ")


@pytest.mark.parametrize(
    "path", ["..%2Fsystem", "studies%2F..%2F..%2Fsystem", "studies/1.2.3/%2e%2e/%2e%2e/system"]
)
def test_escaped_steps_upwards_are_refused(client: TestClient, path: str) -> None:
    with pytest.raises(BadRequest, match="Only DICOMweb reads"):
        client.get(f"/proxy/dicom/wado/{path}")


def test_the_servers_own_name_is_used_and_not_the_viewers(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONAI_LABEL_DICOMWEB_USERNAME", "reader")
    monkeypatch.setenv("MONAI_LABEL_DICOMWEB_PASSWORD", "secret")
    told = client.get("/proxy/dicom/qido/studies", headers={"authorization": "Bearer of-the-viewer"}).text
    assert told.endswith(f"Basic {base64.b64encode(b'reader:secret').decode()}")


@pytest.mark.parametrize(
    ("answer", "told"),
    [("SendMe", "final DICOMweb URL"), ("Refuse", "_USERNAME"), ("Page", "no DICOMweb service")],
)
def test_what_a_viewer_cannot_mend_is_told(client: TestClient, answer: str, told: str) -> None:
    with pytest.raises(BadRequest, match=told) as refused:
        client.get(f"/proxy/dicom/qido/studies?{answer}=1")
    assert refused.value.status == 424


def test_reports_are_rendered_as_pages(client: TestClient) -> None:
    answer = client.get(f"/proxy/dicom/wado/{STUDY}/series/4.5/instances/6.7/rendered?Page=1")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")


def test_a_certificate_that_is_trusted_by_setting(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tmp_path / "pacs.pem"
    order = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext "
        f"subjectAltName=IP:127.0.0.1 -keyout {made} -out {tmp_path}/ca.pem"
    )
    subprocess.run(order.split(), check=True, capture_output=True)
    made.write_bytes(made.read_bytes() + (tmp_path / "ca.pem").read_bytes())
    pacs = ThreadingHTTPServer(("127.0.0.1", 0), Pacs)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(made)
    pacs.socket = tls.wrap_socket(pacs.socket, server_side=True)
    threading.Thread(target=pacs.serve_forever, daemon=True).start()
    monkeypatch.setattr(settings, "MONAI_LABEL_STUDIES", f"https://127.0.0.1:{pacs.server_port}/dicom-web")
    with pytest.raises(BadRequest, match="ConnectError"):
        client.get("/proxy/dicom/qido/studies")
    monkeypatch.setattr(settings, "MONAI_LABEL_APP_CONF", {"dicomweb_ca": str(tmp_path / "ca.pem")})
    assert client.get("/proxy/dicom/qido/studies").text.startswith("/dicom-web/studies ")
    pacs.shutdown()


class Pieces(httpx.AsyncByteStream):
    """An answer that comes piece by piece."""

    def __init__(self) -> None:
        self.given = 0
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(3):
            self.given += 1
            yield b"piece"

    async def aclose(self) -> None:
        self.closed = True


@pytest.mark.parametrize("leaves_after", [0, 1, 99])
def test_pieces_are_passed_on_as_they_come_and_the_connection_is_given_back(leaves_after: int) -> None:
    """Also when the viewer goes away, before or amid them."""
    pieces = Pieces()
    given: list[int] = []

    async def send(message: Message) -> None:
        if len(given) >= leaves_after:
            raise OSError("the viewer has gone")
        if message["type"] == "http.response.body" and message.get("body"):
            given.append(pieces.given)

    async def receive() -> Message:
        await asyncio.sleep(60)
        return {"type": "http.disconnect"}

    async def answer() -> None:
        streamed = proxy._Streamed(httpx.Response(200, stream=pieces))
        scope = {"type": "http", "asgi": {"spec_version": "2.4"}}
        with contextlib.nullcontext() if leaves_after == 99 else pytest.raises(ClientDisconnect):
            await streamed(scope, receive, send)

    asyncio.run(answer())
    assert given == [1, 2, 3][:leaves_after]
    assert pieces.closed


def test_a_connection_that_the_pacs_closed_meanwhile_is_no_failure() -> None:
    """Orthanc keeps them for half a second."""
    asked: list[str] = []

    def pacs(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        if len(asked) == 1:
            raise httpx.RemoteProtocolError("Server disconnected without sending a response.")
        return httpx.Response(200, text="here")

    async def ask() -> int:
        proxy._clients[asyncio.get_running_loop()] = httpx.AsyncClient(transport=httpx.MockTransport(pacs))
        return (await proxy._ask(httpx.URL("http://pacs/studies"), {})).status_code

    assert asyncio.run(ask()) == 200
    assert asked == ["/studies", "/studies"]


def test_connections_are_closed_with_the_server() -> None:
    async def serve() -> httpx.AsyncClient:
        client = proxy._client()
        assert proxy._client() is client
        await proxy.close()
        assert proxy._client() is not client
        return client

    assert asyncio.run(serve()).is_closed


def test_address_without_a_service(client: TestClient) -> None:
    assert client.get(f"/proxy/dicom/{STUDY}/metadata").text.startswith(f"/dicom-web/{STUDY}/metadata")


def test_a_silent_pacs_is_told(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "MONAI_LABEL_STUDIES", "http://127.0.0.1:9/dicom-web")
    with pytest.raises(BadRequest, match="does not answer") as refused:
        client.get("/proxy/dicom/qido/studies")
    assert refused.value.status == 424
