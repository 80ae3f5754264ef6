"""The connection to a PACS: settings, passwords, certificates, and answers of what is no PACS."""

from __future__ import annotations

import json
import logging
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import requests
from orthanc import Pacs, needs_orthanc
from pacs_place import put_series, studies_of
from segmed.server.config.dicomweb_settings import DicomwebSettings, check_url
from segmed.server.datastores.pacs import PacsStudies
from segmed.server.http.errors import BadRequest


@pytest.mark.parametrize(
    ("conf", "reason"),
    [
        ({"modalities": "CT,SEG"}, "'SEG' is no modality of images"),
        ({"modalities": " "}, "empty"),
        ({"dicomweb_filter": "StudyDate=2026"}, "must be JSON"),
        ({"dicomweb_filter": '{"Modality": "CT"}'}, "--conf modalities"),
        ({"dicomweb_list_seconds": "0"}, "from 1 to 3600"),
        ({"dicomweb_cache_mb": "-1"}, "above 0"),
        ({"dicomweb_ca": "/nowhere.pem"}, "is not there"),
    ],
)
def test_settings_are_checked(conf: dict[str, str], reason: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=reason):
        DicomwebSettings.from_conf(conf)


def test_the_password_comes_from_the_environment_and_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONAI_LABEL_DICOMWEB_USERNAME", "ann")
    with pytest.raises(ValueError, match="both"):
        DicomwebSettings.from_conf({})
    monkeypatch.setenv("MONAI_LABEL_DICOMWEB_PASSWORD", "secret")
    settings = DicomwebSettings.from_conf({})
    assert settings.user == ("ann", "secret") and "secret" not in repr(settings)


@needs_orthanc
def test_name_and_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "pacs").mkdir()
    guarded = Pacs(tmp_path / "pacs", user="ann:right")
    guarded.start()
    try:
        put_series(guarded, tmp_path / "s")
        with pytest.raises(BadRequest, match="MONAI_LABEL_DICOMWEB_USERNAME"):
            studies_of(guarded, tmp_path / "cache").list_images()
        monkeypatch.setenv("MONAI_LABEL_DICOMWEB_USERNAME", "ann")
        for password in ("wrong", "right"):
            monkeypatch.setenv("MONAI_LABEL_DICOMWEB_PASSWORD", password)
            store = studies_of(guarded, tmp_path / "cache")
            if password == "right":
                assert len(store.list_images()) == 1
            else:
                with (
                    caplog.at_level(logging.DEBUG),
                    pytest.raises(BadRequest, match="refuses the name") as refused,
                ):
                    store.list_images()
                assert "wrong" not in str(refused.value) and "wrong" not in caplog.text
    finally:
        guarded.stop()


@pytest.mark.parametrize("url", ["http://ann:secret@host/dicom-web", "http://host/dicom-web?x=1", "http://"])
def test_only_plain_addresses_are_taken(url: str) -> None:
    with pytest.raises(ValueError, match="plain DICOMweb address"):
        check_url(url)
    assert check_url("http://host:8042/dicom-web/") == "http://host:8042/dicom-web"


class _Odd(BaseHTTPRequestHandler):
    """Not a PACS, or one that breaks off."""

    answers: ClassVar[dict[str, tuple[int, str, bytes]]] = {}

    def do_GET(self) -> None:
        status, kind, body = next(v for k, v in self.answers.items() if k in self.path)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) + (500 if "multipart" in kind else 0)))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def odd() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Odd)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def _odd_store(odd: ThreadingHTTPServer, cache: Path) -> PacsStudies:
    settings = DicomwebSettings.from_conf({"dicomweb_cache": str(cache), "modalities": "CT"})
    return PacsStudies(f"http://127.0.0.1:{odd.server_address[1]}/dicom-web", settings)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((200, "text/html", b"<html>hello</html>"), "no DICOMweb service"),
        ((200, "application/json", b'{"a": 1}'), ""),
        ((404, "text/html", b"nothing"), "no DICOMweb service at the address"),
        ((500, "text/html", b"oh"), "HTTP 500"),
        ((403, "text/html", b"no"), "refuses the name"),
    ],
)
def test_what_is_no_pacs_is_told(
    odd: ThreadingHTTPServer, tmp_path: Path, answer: tuple[int, str, bytes], reason: str
) -> None:
    _Odd.answers = {"": answer}
    store = _odd_store(odd, tmp_path)
    if reason:
        with pytest.raises(BadRequest, match=reason) as told:
            store.list_images()
        assert told.value.status == 424
    else:
        assert store.list_images() == []


def test_uids_that_are_paths_are_left_out_and_a_broken_download_leaves_nothing(
    odd: ThreadingHTTPServer, tmp_path: Path
) -> None:
    def item(series: str) -> dict[str, Any]:
        values = {"0020000E": series, "0020000D": "1.2", "00080060": "CT"}
        return {tag: {"vr": "UI", "Value": [value]} for tag, value in values.items()}

    listed = json.dumps([item("1.2.3"), item("../../../tmp/x"), item("1..2"), {}]).encode()
    half = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + b"\0" * 128 + b"DICM"
    _Odd.answers = {
        "Modality=SEG": (200, "application/json", b"[]"),
        "studies/": (200, "multipart/related; boundary=b", half),
        "": (200, "application/json", listed),
    }
    store = _odd_store(odd, tmp_path / "cache")
    assert store.list_images() == ["1.2.3"]
    with pytest.raises(BadRequest) as told:
        store.get_image_uri("1.2.3")
    assert told.value.status == 424
    assert [p.name for p in (store.root / "series").iterdir()] == ["1.2.3.lock"]


def test_certificates_are_checked_and_can_be_given(
    odd: ThreadingHTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, pem = tmp_path / "key.pem", tmp_path / "cert.pem"
    words = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext "
        "subjectAltName=IP:127.0.0.1"
    )
    subprocess.run([*words.split(), "-keyout", str(key), "-out", str(pem)], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)
    odd.socket = context.wrap_socket(odd.socket, server_side=True)
    _Odd.answers = {"": (200, "application/json", b"[]")}
    url = f"https://127.0.0.1:{odd.server_address[1]}/dicom-web"
    monkeypatch.setenv("CURL_CA_BUNDLE", "")
    with pytest.raises(BadRequest, match="--conf dicomweb_ca"):
        PacsStudies(url, DicomwebSettings(cache=tmp_path)).list_images()
    monkeypatch.setenv(
        "REQUESTS_CA_BUNDLE", "/etc/ssl/certs/ca-certificates.crt"
    )  # what is given in conf wins
    settings = DicomwebSettings.from_conf({"dicomweb_cache": str(tmp_path), "dicomweb_ca": str(pem)})
    assert PacsStudies(url, settings).list_images() == []


def test_a_pacs_that_says_nothing_does_not_hold_everybody_up(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        store = PacsStudies(f"http://127.0.0.1:{closed.getsockname()[1]}/x", DicomwebSettings(cache=tmp_path))
        asked = 0

        def connect(*_: Any, **__: Any) -> Any:
            nonlocal asked
            asked += 1
            raise requests.ConnectTimeout

        store.pacs._client._session.get = connect  # type: ignore[method-assign]
        for _ in range(5):
            with pytest.raises(BadRequest, match="in time"):
                store.list_images()
        assert asked == 1
