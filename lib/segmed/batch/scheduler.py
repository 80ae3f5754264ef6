"""The loop of a run: gives waiting items to workers, and notes how they end."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from segmed.batch.manifest import Manifest
from segmed.batch.pools import Pool
from segmed.batch.tasks import Ending, Outcome, Task

_POLL = 0.5  # s between two looks at workers, at the latest
_READ_AHEAD = 256  # waiting items in memory
_AVERAGED = 200  # ends over which the rate is averaged
_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 300.0  # s until a PACS that is away is asked again; doubled each time


@dataclass(frozen=True)
class Limits:
    """Limits of a run.

    Attributes:
        bytes: Estimated memory of the items under way. A larger item runs alone.
        patience: Time in seconds to wait for a PACS that is away.
    """

    bytes: int = 2 * 2**30
    patience: float = 4 * 3600.0

    def __post_init__(self) -> None:
        if self.bytes < 1 or not self.patience >= 0:
            raise ValueError(
                f"The limits are {self.bytes} bytes and a patience of {self.patience} s. Give at least 1 "
                "byte and 0 s."
            )


@dataclass(frozen=True)
class RunState:
    """How far a run is.

    Attributes:
        total: Number of items.
        done: Number of items that are done.
        failed: Number of items that failed.
        rate: Items per second over the last ones, 0 if unknown.
        seconds_left: Estimated seconds until the end, NaN if unknown.
        pause: Why nothing is started now, or "".
    """

    total: int
    done: int
    failed: int
    rate: float = 0.0
    seconds_left: float = float("nan")
    pause: str = ""


class Courtesy:
    """Whether others need the device now; by default, nobody does."""

    def busy(self) -> bool:
        """Whether no item should be started."""
        return False


@dataclass
class Scheduler:
    """Runs the waiting items of a manifest.

    Time is taken from a monotonic clock, so that a change of the system's time has no effect.

    Attributes:
        manifest: The manifest.
        pool: The workers.
        version: Version of the model, noted with each result.
        limits: Limits of the run.
        tell: Function called after each change.
        courtesy: Asked before an item is started.
        clock: Time in seconds.
        sleep: Function that waits a number of seconds.
        stopped: Why the run stops before its end, or "".
    """

    manifest: Manifest
    pool: Pool
    version: str = ""
    limits: Limits = field(default_factory=Limits)
    tell: Callable[[RunState], None] = lambda state: None
    courtesy: Courtesy = field(default_factory=Courtesy)
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    stopped: str = ""

    def __post_init__(self) -> None:
        self._ahead: deque[Task] = deque()
        self._flight: dict[int, Task] = {}
        self._cursor = 0
        self._returned = False  # whether items before the cursor wait again
        self._counts: Counter[str] = Counter(self.manifest.counts())
        self._total = sum(self._counts.values())
        self._ends: deque[float] = deque(maxlen=_AVERAGED)
        self._pauses = 0
        self._away_since = self._ask_again = float("-inf")
        self._away = ""

    def stop(self, reason: str) -> None:
        """Start no further items; those under way end."""
        self.stopped = self.stopped or reason

    def run(self) -> RunState:
        """Run until no item waits, or until the run is stopped.

        Raises:
            OSError: The manifest cannot be written; run again when it can.
        """
        self._ends.append(self.clock())
        outcomes: list[Outcome] = []
        while True:
            started = self._turn(outcomes)
            self.tell(self.state())
            if not started and not self._flight and (self.stopped or not self._waits()):
                return self.state()
            outcomes = self.pool.wait(_POLL) if self._flight else []
            if not self._flight:
                self.sleep(min(max(self._ask_again - self.clock(), _POLL / 10), _POLL * 10))

    def state(self) -> RunState:
        """How far the run is."""
        done, failed = self._counts["done"], self._counts["failed"]
        rate, left = 0.0, self._total - done - failed
        if len(self._ends) > 1 and self._ends[-1] > self._ends[0]:
            rate = (len(self._ends) - 1) / (self._ends[-1] - self._ends[0])
        return RunState(self._total, done, failed, rate, left / rate if rate else float("nan"), self._pause())

    def _turn(self, outcomes: Iterable[Outcome]) -> int:
        """Note what ended and choose what begins, in one transaction; then start it."""
        outcomes = list(outcomes)
        chosen = self._choose([outcome.item for outcome in outcomes])
        if not outcomes and not chosen:
            return 0
        with self.manifest.write():
            states = [self.manifest.end(outcome, self.version) for outcome in outcomes]
            for task in chosen:
                self.manifest.begin(task)
        for outcome, state in zip(outcomes, states, strict=True):
            self._ended(outcome, state)
        for task in chosen:
            if self.stopped:  # by an outcome of this turn; `recover` would take this for a crash
                with self.manifest.write() as sql:
                    sql.execute("UPDATE items SET state = 'pending' WHERE id = ?", (task.item,))
                continue
            self._flight[task.item] = task
            self.pool.submit(task)
        return len(chosen)

    def _choose(self, ended: list[int]) -> list[Task]:
        """The items to begin, as memory and workers allow."""
        chosen: list[Task] = []
        if self._pause():
            return chosen
        flight = {item: task.size for item, task in self._flight.items() if item not in ended}
        used = sum(flight.values())
        while len(chosen) < self.pool.free() and (task := self._first(chosen)) is not None:
            if (flight or chosen) and used + task.size > self.limits.bytes:
                break
            if self.courtesy.busy():
                break
            chosen.append(self._ahead.popleft())
            used += task.size
        return chosen

    def _first(self, chosen: Sequence[Task] = ()) -> Task | None:
        """The next waiting item; those that were chosen still count as waiting in the manifest."""
        if not self._ahead and chosen:
            return None
        if not self._ahead:
            self._ahead.extend(self.manifest.next_tasks(self._cursor, _READ_AHEAD))
            if not self._ahead and self._returned:
                self._returned = False
                self._ahead.extend(self.manifest.next_tasks(0, _READ_AHEAD))
            if self._ahead:
                self._cursor = self._ahead[-1].item
        return self._ahead[0] if self._ahead else None

    def _waits(self) -> bool:
        return self._first() is not None

    def _ended(self, outcome: Outcome, state: str) -> None:
        del self._flight[outcome.item]
        if state in ("done", "failed"):
            self._counts[state] += 1
            self._ends.append(self.clock())
        else:
            self._returned = True
        if outcome.ending is Ending.FULL:
            self.stop(f"{outcome.error} Make room, and run the same command again.")
        elif outcome.ending is Ending.AWAY:
            self._wait_for_pacs(outcome.error)
        elif outcome.ending in (Ending.DONE, Ending.WRITTEN):
            self._pauses, self._away = 0, ""

    def _wait_for_pacs(self, error: str) -> None:
        now = self.clock()
        if not self._away:
            self._away_since = now
        self._away = error
        if now - self._away_since >= self.limits.patience:
            minutes = round((now - self._away_since) / 60)
            self.stop(f"{error} It has been away for {minutes} minutes. Run the same command again later.")
        elif now >= self._ask_again:  # not once more for items that began before the pause
            self._ask_again = now + min(_FIRST_PAUSE * 2**self._pauses, _LONGEST_PAUSE)
            self._pauses += 1

    def _pause(self) -> str:
        if self.stopped:
            return self.stopped
        return self._away if self.clock() < self._ask_again else ""
