"""Identifies the process that carries out a retraining, and checks whether it still runs."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from pathlib import Path

import psutil

from segmed.active.store.clock import boot_id

# Linux; psutil adds the time of the start of the machine, which changes when its clock is set
_PROCESSES = Path("/proc/self").parent


@dataclass(frozen=True)
class ProcessId:
    """A process, identified so that no later process is mistaken for it.

    Attributes:
        pid: Process id.
        started: Clock ticks between the start of the machine and that of the process; elsewhere than on
            Linux, hundredths of a second between 1970 and the start of the process.
        boot: Identifier of the run of the machine, see `boot_id`.
        token: Random text that distinguishes the state machines of one process.
    """

    pid: int
    started: int
    boot: str
    token: str = ""

    @classmethod
    def current(cls) -> ProcessId:
        """The current process, with a new token at each call."""
        return cls(os.getpid(), _started(os.getpid()) or 0, boot_id(), uuid.uuid4().hex)


def is_alive(owner: ProcessId) -> bool:
    """Whether the process still runs; another process with the same id does not count."""
    return owner.boot == boot_id() and _started(owner.pid) == owner.started


def _started(pid: int) -> int | None:
    if not _PROCESSES.is_dir():
        try:
            return int(100 * psutil.Process(pid).create_time())
        except psutil.Error:
            return None
    try:
        text = (_PROCESSES / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    values = text.rpartition(")")[2].split()  # the name before it may hold anything
    return None if values[0] in ("Z", "X") else int(values[19])
