"""A server whose PACS falls silent and comes back: what is there already stays quick, and the rest is told in
time."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from dicom_phantom import phantom_series
from running import Server, Start, free_port
from segmed.data.phantom import Phantom

SOON = 25.0  # s: a PACS has ten to answer a search, and it is not asked again at once
SHAPE = (24, 20, 6)


class Pacs(threading.Thread):
    """A DICOMweb service of one series that can be told to take connections and say nothing.

    Args:
        folder: of the DICOM files.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        import pydicom

        self._files = [path.read_bytes() for path in sorted(folder.glob("*.dcm"))]
        head = pydicom.dcmread(folder / "000.dcm")
        self.series, self.study = str(head.SeriesInstanceUID), str(head.StudyInstanceUID)
        self.port = free_port()
        self.silent = False
        self.every_other = False
        self._count = 0
        self._kept: list[socket.socket] = []

    @property
    def url(self) -> str:
        """Of DICOMweb."""
        return f"http://127.0.0.1:{self.port}/dicom-web"

    def run(self) -> None:
        with socket.create_server(("127.0.0.1", self.port), backlog=100) as server:
            while True:
                connection = server.accept()[0]
                self._count += 1
                if self.silent or (self.every_other and self._count % 2):
                    self._kept.append(connection)  # and not a word
                else:
                    threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            asked = connection.recv(65536).decode("latin-1")
            path = asked.split(" ", 2)[1] if " " in asked else ""
            kind, body = "application/dicom+json", json.dumps(self._listed()).encode()
            if "offset=" in path or "Modality=SEG" in path:
                body = b"[]"
            elif re.search(rf"/series/{self.series}$", path.partition("?")[0]):
                kind = 'multipart/related; type="application/dicom"; boundary=edge'
                parts = (
                    b"--edge\r\nContent-Type: application/dicom\r\n\r\n" + file + b"\r\n"
                    for file in self._files
                )
                body = b"".join(parts) + b"--edge--\r\n"
            lines = [
                "HTTP/1.1 200 OK",
                f"Content-Type: {kind}",
                f"Content-Length: {len(body)}",
                "Connection: close",
            ]
            connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)

    def _listed(self) -> list[dict[str, object]]:
        values = {"0020000E": self.series, "0020000D": self.study, "00080060": "CT"}
        facts: dict[str, object] = {tag: {"vr": "UI", "Value": [value]} for tag, value in values.items()}
        return [facts | {"00201209": {"vr": "IS", "Value": [len(self._files)]}}]


@pytest.fixture(scope="module")
def flapping(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Pacs, Server]]:
    folder = tmp_path_factory.mktemp("series")
    _phantom: Phantom = phantom_series(folder, shape=SHAPE)
    pacs = Pacs(folder)
    pacs.start()
    cache = str(tmp_path_factory.mktemp("cache"))
    conf = (
        "--conf",
        "models",
        "classical",
        "--conf",
        "dicomweb_cache",
        cache,
        "--conf",
        "dicomweb_list_seconds",
        "1",
    )
    yield pacs, start(pacs.url, *conf)


def _timed(method: str, url: str, **more: object) -> tuple[requests.Response, float]:
    begun = time.monotonic()
    answer = requests.request(method, url, timeout=SOON, **more)  # type: ignore[arg-type]
    return answer, time.monotonic() - begun


def _prompt(server: Server, image: str) -> requests.Response:
    data = {"params": json.dumps({"roi": [4, 16, 4, 16, 2, 2]})}
    return _timed("POST", f"{server.url}/infer/classical?image={image}&output=image", data=data)[0]


def _back_within(server: Server, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if requests.get(f"{server.url}/info/", timeout=SOON).json()["datastore"].get("state", "ok") == "ok":
            told = requests.get(f"{server.url}/api/state", timeout=SOON).json()["studies"]
            if told["state"] == "ok":
                return True
        time.sleep(0.5)
    return False


def test_a_silent_pacs_keeps_nobody_waiting_for_what_is_there(flapping: tuple[Pacs, Server]) -> None:
    pacs, server = flapping
    assert _prompt(server, pacs.series).status_code == 200
    pacs.silent = True
    time.sleep(1.1)  # the list is asked for anew
    done = threading.Event()
    found: list[int] = []

    def others() -> None:  # who wait for the PACS, all at once
        found.append(requests.get(f"{server.url}/api/images", timeout=60).status_code)
        done.set()

    for _ in range(12):
        threading.Thread(target=others, daemon=True).start()
    for path in ("/", "/api/state", "/info/"):
        answer, _ = _timed("GET", server.url + path)  # raises where it takes longer than SOON
        assert answer.status_code in (200, 503 if path == "/" else 200), (path, answer.text)
    assert _prompt(server, pacs.series).status_code == 200
    unknown, _ = _timed("POST", f"{server.url}/infer/classical?image=1.2.3", data={"params": "{}"})
    assert unknown.status_code in (404, 424), unknown.text
    assert done.wait(SOON)
    assert {*found} <= {200, 424}
    pacs.silent = False
    assert _back_within(server, 60)
    assert _prompt(server, pacs.series).status_code == 200


def test_one_that_answers_every_other_time_is_lived_with(flapping: tuple[Pacs, Server]) -> None:
    pacs, server = flapping
    pacs.every_other = True
    try:
        for _ in range(6):
            answer, _ = _timed("GET", f"{server.url}/api/images")
            assert answer.status_code in (200, 424), answer.text
            assert _prompt(server, pacs.series).status_code == 200
            time.sleep(1.1)
    finally:
        pacs.every_other = False
    assert _back_within(server, 90)
    listed = requests.get(f"{server.url}/api/images", timeout=SOON).json()
    assert [one["id"] for one in listed] == [pacs.series]
