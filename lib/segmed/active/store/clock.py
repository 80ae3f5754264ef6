"""A clock that never goes back, whatever happens to the system time, and continues after restarts."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple


class Reading(NamedTuple):
    """A reading of the machine's clocks.

    Attributes:
        boot: Identifier of the time between two starts of the machine.
        uptime: Time since the start in seconds, including sleep; the same for all processes and never set.
            The system time where there is no such clock (Windows, macOS).
        wall: System time in seconds since 1970, which may be set forward and back.
    """

    boot: str
    uptime: float
    wall: float


def boot_id() -> str:
    """Identifier of the current run of the machine; "" where the system provides none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def read_clock() -> Reading:
    """The current reading of the clocks."""
    wall = time.time()
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return Reading("", wall, wall) if clock is None else Reading(boot_id(), time.clock_gettime(clock), wall)


def passed(before: Reading, now: Reading) -> float:
    """Seconds between two readings, never negative.

    Within one run of the machine the uptime counts. Between two runs, only the system time is available; if
    it was set back, no time has passed."""
    if before.boot == now.boot:
        return max(0.0, now.uptime - before.uptime)
    return max(0.0, now.wall - before.wall)
