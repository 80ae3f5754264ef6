"""What `segmed doctor` finds, and what it exits with."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from segmed.cli import app
from segmed.commands import doctor
from segmed.places import APP
from typer.testing import CliRunner


@pytest.fixture
def status() -> Iterator[dict[str, int]]:
    """A PACS that answers with `code` at `port`."""
    told = {"code": 200}

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(told["code"])
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        told["port"] = server.server_port
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield told
        server.shutdown()


def test_a_machine_that_can_run_it(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    result = CliRunner().invoke(app, ["doctor", "--studies", str(tmp_path), "--port", str(port)])
    assert result.exit_code == 0, result.output
    for about in ("Python", "packages", "port", "disk", "weights", "web page", "studies", "PyTorch"):
        assert f" {about}" in result.output


def test_a_port_that_is_taken_fails_with_a_remedy() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = CliRunner().invoke(app, ["doctor", "--port", str(taken.getsockname()[1])])
    assert result.exit_code == 1
    assert "failed   port" in result.output and "choose another --port" in result.output


@pytest.mark.parametrize(
    ("code", "state", "remedy"), [(200, "ok", ""), (401, "failed", "USERNAME"), (404, "failed", "8042")]
)
def test_a_pacs(status: dict[str, int], code: int, state: str, remedy: str) -> None:
    status["code"] = code
    found = doctor.pacs(f"http://127.0.0.1:{status['port']}/dicom-web")
    assert found.state == state and remedy in found.remedy


def test_a_pacs_that_is_not_there() -> None:
    found = doctor.pacs("http://127.0.0.1:9/dicom-web")
    assert found.state == "failed" and "does not answer" in found.found


def test_damaged_weights_are_found(tmp_path: Path) -> None:
    assert doctor.weights(APP / "model").state == "ok"
    shutil.copytree(APP / "model" / "segmed-default", tmp_path / "segmed-default")
    (tmp_path / "segmed-default" / "model.safetensors").write_bytes(b"cut off")
    found = doctor.weights(tmp_path)
    assert found.state == "failed" and "segmed-default" in found.found and found.remedy


def test_other_pythons_pages_and_folders(tmp_path: Path) -> None:
    assert doctor.python_version((3, 13, 0)).state == "ok"
    assert doctor.python_version((3, 10, 9)).state == doctor.python_version((3, 14, 0)).state == "failed"
    assert doctor.page(tmp_path).state == "warning"
    assert doctor.folder(tmp_path / "none").state == "failed"
