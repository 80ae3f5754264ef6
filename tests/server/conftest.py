"""A real server, started the way a user starts it."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import pytest
from monailabel.client import MONAILabelClient
from PIL import Image
from segmed.data.phantom import Phantom, make_phantom
from tiny_sam import save_folder, tiny_sam

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Server:
    """A running server."""

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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


Start = Callable[..., Server]


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Start servers with `scripts/serve.sh`; all are stopped at the end."""
    processes: list[subprocess.Popen[bytes]] = []

    def run(studies: Path, *arguments: str, temporary: Path | None = None) -> Server:
        port = _free_port()
        work = tmp_path_factory.mktemp("server")
        temporary = temporary or work / "tmp"
        temporary.mkdir(exist_ok=True)
        log = work / "log.txt"
        if "registry" not in arguments:  # not that of the checkout
            arguments = (*arguments, "--conf", "registry", str(work / "registry"))
        command = [str(ROOT / "scripts/serve.sh"), "--studies", str(studies), "--port", str(port), *arguments]
        environment = {**os.environ, "TMPDIR": str(temporary), "HF_HUB_OFFLINE": "1"}
        with log.open("wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment, cwd=work)
        processes.append(process)
        deadline = time.monotonic() + 180
        while "SegMed is ready" not in log.read_text(encoding="utf-8"):
            assert process.poll() is None, log.read_text(encoding="utf-8")
            assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
            time.sleep(0.2)
        url = re.search(r"ready at (\S+)", log.read_text(encoding="utf-8"))
        assert url and url[1] == f"http://127.0.0.1:{port}"
        client_folder = work / "client"
        client_folder.mkdir()
        client = MONAILabelClient(url[1], str(client_folder), "user-xyz")
        return Server(url[1], studies, temporary, client, log, process, frozenset(temporary.rglob("*")))

    yield run
    for process in processes:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


@pytest.fixture(scope="session")
def phantom() -> Phantom:
    return make_phantom("CT", shape=(96, 80, 24), spacing=(3.6, 3.6, 8.0), seed=5)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_folder(tiny_sam(), tmp_path_factory.mktemp("weights") / "tiny")


@pytest.fixture(scope="session")
def server(start: Start, phantom: Phantom, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """Serves a volume, a picture and what should not be opened; models classical, sam and medsam."""
    studies = tmp_path_factory.mktemp("studies")
    nib.save(nib.Nifti1Image(phantom.image, phantom.affine), studies / "ct.nii.gz")
    grey = ((phantom.image[:, :, 12].T.clip(-160, 240) + 160) / 400 * 255).astype("uint8")
    Image.fromarray(grey).save(studies / "photo.png")
    (studies / "broken.nii.gz").write_bytes(b"no image")
    shutil.copy(studies / "ct.nii.gz", studies / "ct for saving.nii.gz")
    return start(studies, "--conf", "backbone", str(weights), "--conf", "labels", "liver,spleen")
