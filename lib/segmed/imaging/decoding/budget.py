"""What the decoding of one file may cost, by the size of the file and the voxels that its header tells of."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import psutil

_MIB = 2**20


@dataclass(frozen=True)
class Budget:
    """Generous for every honest file, and far below what a small file can be made to cost.

    Attributes:
        memory: bytes that reading may take before the header has told of voxels.
        voxel_memory: bytes more for each voxel; float64 that is scaled takes 20 of them.
        file_memory: bytes more for each byte of the file.
        seconds: of processor time for the smallest file.
        voxel_rate: voxels that even a slow processor decodes in a second.
        file_rate: bytes of the file that it reads in a second.
        waiting: seconds on the clock for each second of processor time, on a busy machine or a slow disk.
        shortest: seconds on the clock that each file has.
    """

    memory: int = 512 * _MIB
    voxel_memory: int = 24
    file_memory: int = 3
    seconds: float = 3.0
    voxel_rate: float = 2e6
    file_rate: float = 4e6
    waiting: float = 8.0
    shortest: float = 30.0

    def most_memory(self, file: int, voxels: int) -> int:
        """Bytes, at most three quarters of those of the machine."""
        wanted = self.memory + self.voxel_memory * voxels + self.file_memory * file
        return int(min(wanted, 0.75 * psutil.virtual_memory().total))

    def most_seconds(self, file: int, voxels: int) -> float:
        """Seconds of processor time."""
        return self.seconds + voxels / self.voxel_rate + file / self.file_rate

    def most_waiting(self, file: int, voxels: int) -> float:
        """Seconds on the clock."""
        return max(self.shortest, self.waiting * self.most_seconds(file, voxels))


def size_of(path: Path) -> int:
    """Bytes of a file, or of the files of a folder; 0 where nothing is."""
    with contextlib.suppress(OSError):
        return sum(one.stat().st_size for one in path.iterdir()) if path.is_dir() else path.stat().st_size
    return 0
