"""A clock that a test sets, and the state of active learning that is read with it."""

from __future__ import annotations

from pathlib import Path

from segmed.active.store.clock import Reading
from segmed.active.store.database import Database
from segmed.active.store.state import ActiveState


class FakeClock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.boot, self.uptime, self.wall = "one", 1000.0, 5e8

    def __call__(self) -> Reading:
        return Reading(self.boot, self.uptime, self.wall)

    def sleep(self, seconds: float) -> None:
        self.uptime += seconds
        self.wall += seconds


def filled(folder: Path, images: int, clock: FakeClock | None = None, lease: float = 100.0) -> ActiveState:
    state = ActiveState(Database(folder, clock or FakeClock()), lease)
    state.observe({f"i{n}": "f" for n in range(images)}, [])
    return state


def proposed(
    state: ActiveState, user: str, count: int = 1, strategy: str = "sequential", keep: bool = True
) -> list[str]:
    return [p.image for p in state.propose(strategy, user, count, keep=keep)]
