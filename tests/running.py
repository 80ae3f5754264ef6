"""A real server, started the way a user starts it; conftest files import the fixtures `start` and
`start_shared`."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from monailabel.client import MONAILabelClient

ROOT = Path(__file__).resolve().parents[1]
_STARTS_WITHIN = 180  # seconds


@dataclass
class Server:
    """A running server; `studies` is a folder or the URL of a PACS."""

    url: str
    studies: Path
    temporary: Path
    client: MONAILabelClient
    log: Path
    process: subprocess.Popen[bytes]
    at_start: frozenset[Path] = frozenset()

    def left_behind(self) -> list[Path]:
        """Files of requests that were not cleaned up; those of open sessions belong there."""
        files = {p for p in self.temporary.rglob("*") if p.is_file() and "sessions" not in p.parts}
        return sorted(files - self.at_start)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(text: str, log: Path, process: subprocess.Popen[bytes]) -> str:
    """What a process that writes to `log` has said, once `text` is in it."""
    deadline = time.monotonic() + _STARTS_WITHIN
    while text not in (said := log.read_text(encoding="utf-8")):
        assert process.poll() is None, said
        assert time.monotonic() < deadline, said
        time.sleep(0.2)
    return said


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()


Start = Callable[..., Server]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Start servers with `scripts/serve.sh`; all are stopped at the end of the module, a server takes 1
    GB."""
    yield from starting(tmp_path_factory)


@pytest.fixture(scope="session")
def start_shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """As `start`, for servers that several modules use."""
    yield from starting(tmp_path_factory)


def starting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """What `start` is, for a fixture of another scope."""
    processes: list[subprocess.Popen[bytes]] = []

    def run(
        studies: Path | str, *arguments: str, temporary: Path | None = None, port: int = 0, **environment: str
    ) -> Server:
        port = port or free_port()
        work = tmp_path_factory.mktemp("server")
        temporary = temporary or work / "tmp"
        temporary.mkdir(exist_ok=True)
        log = work / "log.txt"
        if "registry" not in arguments:  # not that of the checkout
            arguments = (*arguments, "--conf", "registry", str(work / "registry"))
        command = [str(ROOT / "scripts/serve.sh"), "--studies", str(studies), "--port", str(port), *arguments]
        variables = {**os.environ, "TMPDIR": str(temporary), "HF_HUB_OFFLINE": "1", **environment}
        with log.open("wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=variables, cwd=work)
        processes.append(process)
        url = re.search(r"ready at (\S+)", wait_for("SegMed is ready", log, process))
        assert url and url[1] == f"http://127.0.0.1:{port}"
        client_folder = work / "client"
        client_folder.mkdir()
        client = MONAILabelClient(url[1], str(client_folder), "user-xyz")
        return Server(url[1], Path(studies), temporary, client, log, process, frozenset(temporary.rglob("*")))

    yield run
    for process in processes:
        stop(process)
