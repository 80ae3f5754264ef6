"""Throttling of background work: it waits for users' requests, and takes a small share of the time."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Cancelled(Exception):
    """The background work was cancelled."""


class Throttle:
    """Decides when pieces of background work begin.

    One piece runs at a time. It begins only if no request is under way and none was in the last `quiet`
    seconds. Until `idle` seconds have passed since the last request, a piece of t seconds is followed by a
    pause, so that all pieces together take no more than `share` of the time: a request meets one with that
    probability, and waits for one piece at most. After `idle` seconds without any request, or t / share if
    that is more, the pieces follow each other: the next request waits for one at most, which is no more than
    `share` of the time since the last one.

    Args:
        share: Share of the time, in (0, 1].
        quiet: Time in seconds without requests before a piece begins.
        idle: Time in seconds without requests after which pieces follow each other.
        clock: Function that returns the time in seconds, for tests.

    Attributes:
        spent: Time that all pieces took, in seconds.
    """

    def __init__(
        self,
        share: float = 0.05,
        quiet: float = 1.0,
        idle: float = 20.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 0 < share <= 1:
            raise ValueError(
                f"A share of {share} of the time is not possible; give one in (0, 1], such as 0.05."
            )
        self.share, self.quiet, self.idle = share, quiet, idle
        self._clock = clock
        self._changed = threading.Condition()
        self._running = 0
        self._last = self._next = -math.inf
        self._took = self.spent = 0.0
        self._occupied = False

    @contextmanager
    def request(self) -> Iterator[None]:
        """A user's request, which background work waits for."""
        with self._changed:
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._last = self._clock()
                self._changed.notify_all()

    @contextmanager
    def piece(
        self, cancelled: Callable[[], bool] = lambda: False, at_most: float = math.inf
    ) -> Iterator[None]:
        """A piece of background work, as soon as it may begin.

        Args:
            cancelled: Function that is called while the piece waits, and returns whether to stop.
            at_most: Longest time in seconds to wait for users; after it, the piece begins within its share of
                the time.

        Raises:
            Cancelled: `cancelled` returned True.
        """
        end = self._clock() + at_most
        with self._changed:
            while not cancelled():
                delay = min(self.delay(), max(end, self._next) - self._clock())
                if delay <= 0 and not self._occupied:
                    break
                self._changed.wait(min(max(delay, 0.01), 0.2))
            else:
                raise Cancelled
            self._occupied = True
            began = self._clock()
        try:
            yield
        finally:
            with self._changed:
                now = self._clock()
                self._occupied = False
                self._took = now - began
                self.spent += self._took
                self._next = now + self._took * (1 / self.share - 1)
                self._changed.notify_all()

    def delay(self) -> float:
        """Seconds until a piece may begin if no request comes; infinite during one, 0 or less now."""
        now = self._clock()
        if self._running:
            return math.inf
        if now - self._last >= max(self.idle, self._took / self.share):
            return 0.0
        return max(self._last + self.quiet, self._next) - now
