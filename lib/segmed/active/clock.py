"""Time that only goes forward, whatever happens to the clock on the wall, and goes on over restarts."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple


class Reading(NamedTuple):
    """What the machine's clocks say.

    Attributes:
        boot: names the time between two starts of the machine.
        uptime: s since then, sleep among them; the same for all processes and never set by anyone.
        wall: s since 1970; may be set forward and back.
    """

    boot: str
    uptime: float
    wall: float


def boot_id() -> str:
    """The name of this run of the machine; "" where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def read_clock() -> Reading:
    """The clocks of now."""
    return Reading(boot_id(), time.clock_gettime(time.CLOCK_BOOTTIME), time.time())


def passed(before: Reading, now: Reading) -> float:
    """Seconds between two readings, never negative.

    Within one run of the machine the uptime counts. Between two runs only the wall clock can tell; if it was set back,
    no time has passed.
    """
    if before.boot == now.boot:
        return max(0.0, now.uptime - before.uptime)
    return max(0.0, now.wall - before.wall)
