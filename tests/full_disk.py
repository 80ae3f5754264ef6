"""A disk that is full when a test wants it to be; conftest files import the fixture `disk`."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SIZE = 24 * 2**20


@dataclass
class Disk:
    """A folder on a small disk.

    Attributes:
        folder: empty at first.
        mounted: whether it is a disk of its own; otherwise files are only kept from growing.
    """

    folder: Path
    mounted: bool

    @contextlib.contextmanager
    def full(self, left: int = 0) -> Iterator[None]:
        """For a while there is room for `left` bytes; without a disk of its own, for that many in each
        file."""
        if not self.mounted:
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (left, hard))
            try:
                yield
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
                signal.signal(signal.SIGXFSZ, before)
            return
        filler = self.folder / ".filler"
        facts = os.statvfs(self.folder)
        count = facts.f_bavail * facts.f_frsize - left
        try:
            with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while count > 0:
                    count -= file.write(bytes(min(count, 2**20)))
            yield
        finally:
            filler.unlink(missing_ok=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """24 MiB in memory where mounting is allowed; otherwise a limit of the size of files."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0
    yield Disk(folder, mounted)
    if mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)
