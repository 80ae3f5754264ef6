"""A real PACS, started by `scripts/pacs.sh`; conftest files import the fixture `pacs`."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest
from running import ROOT, free_port, stop, wait_for

needs_orthanc = pytest.mark.skipif(
    shutil.which("Orthanc") is None,
    reason="Orthanc is not installed: apt-get install orthanc orthanc-dicomweb",
)


@dataclass
class Pacs:
    """Orthanc on a port of its own.

    Attributes:
        folder: what it stores, and its log.
        user: NAME:PASSWORD that it asks for, or "".
    """

    folder: Path
    user: str = ""
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def root(self) -> str:
        """Of Orthanc's own REST interface."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Of DICOMweb."""
        return f"{self.root}/dicom-web"

    def start(self) -> None:
        log = self.folder / "log.txt"
        command = [
            str(ROOT / "scripts/pacs.sh"),
            "--port",
            str(self.port),
            "--folder",
            str(self.folder / "images"),
        ]
        command += ["--empty", *(["--user", self.user] if self.user else [])]
        with log.open("wb") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        wait_for("The PACS is ready", log, self.process)

    def stop(self) -> None:
        if self.process:
            stop(self.process)

    def freeze(self) -> None:
        """It answers nothing, but its connections stay."""
        assert self.process
        for one in psutil.Process(self.process.pid).children(recursive=True):
            one.suspend()

    def thaw(self) -> None:
        assert self.process
        for one in psutil.Process(self.process.pid).children(recursive=True):
            one.resume()

    def rest(self) -> httpx.Client:
        name, _, password = self.user.partition(":")
        return httpx.Client(base_url=self.root, auth=(name, password) if name else None, timeout=60)

    def upload(self, folder: Path) -> None:
        """All DICOM files below a folder."""
        with self.rest() as rest:
            for path in sorted(folder.rglob("*.dcm")):
                rest.post("/instances", content=path.read_bytes()).raise_for_status()

    def series(self, modality: str, study: str = "") -> list[bytes]:
        """One file of each series of that modality, of the study with that UID or of all."""
        query = {"Modality": modality, **({"StudyInstanceUID": study} if study else {})}
        with self.rest() as rest:
            found = rest.post("/tools/find", json={"Level": "Series", "Query": query}).json()
            first = [rest.get(f"/series/{one}").json()["Instances"][0] for one in found]
            return [rest.get(f"/instances/{one}/file").content for one in first]


def started(folder: Path) -> Iterator[Pacs]:
    """A PACS of its own folder, stopped at the end; the test is skipped where Orthanc is not installed."""
    if shutil.which("Orthanc") is None:
        pytest.skip("Orthanc is not installed: apt-get install orthanc orthanc-dicomweb")
    one = Pacs(folder)
    one.start()
    yield one
    one.stop()


@pytest.fixture(scope="session")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pacs]:
    """A PACS that holds nothing yet."""
    yield from started(tmp_path_factory.mktemp("pacs"))
