"""Which process carries out a retraining, and whether it still runs."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from pathlib import Path

from segmed.active.clock import boot_id


@dataclass(frozen=True)
class ProcessId:
    """A process, named so that none that comes later is taken for it.

    Attributes:
        pid: of the process.
        started: clock ticks between the start of the machine and that of the process.
        boot: names the run of the machine.
        token: tells the machines of one process apart.
    """

    pid: int
    started: int
    boot: str
    token: str = ""

    @classmethod
    def current(cls) -> ProcessId:
        """This process, with a token of its own each time."""
        return cls(os.getpid(), _started(os.getpid()) or 0, boot_id(), uuid.uuid4().hex)


def is_alive(owner: ProcessId) -> bool:
    """Whether the process still runs; another one with its number does not count."""
    return owner.boot == boot_id() and _started(owner.pid) == owner.started


def _started(pid: int) -> int | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    values = text.rpartition(")")[2].split()  # the name before it may hold anything
    return None if values[0] in ("Z", "X") else int(values[19])
