"""Requests that are under way: how far each is, what it has found, and whether it is to stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from segmed.server.workspace.patches import Patch

Key = tuple[str, str, str]


class Stopped(Exception):
    """A request was stopped.

    Attributes:
        keep: Whether what was found is kept.
        note: Sentence for the user.
    """

    def __init__(self, keep: bool, note: str) -> None:
        super().__init__(note)
        self.keep, self.note = keep, note


class Job:
    """One request, which its own thread works on while others look at it or stop it.

    Args:
        limit: Longest time in seconds that it may work; 0 for no limit.
        watched: Whether somebody is told of the progress.
    """

    def __init__(self, limit: float = 0, watched: bool = False) -> None:
        self.limit, self.watched = limit, watched
        self._guard = threading.Lock()
        self._began: float | None = None
        self._done = self._most = 0
        self._changes: list[Patch] = []
        self._labels: Mapping[str, int] = {}
        self._keep: bool | None = None

    def begin(self) -> None:
        """Start the clock: the request has waited for its turn, and is worked on now."""
        self._began = time.monotonic()

    def stop(self, keep: bool) -> None:
        """Have the request end as soon as the slice that it works on is done.

        Args:
            keep: Whether what was found until then is kept.
        """
        self._keep = keep

    def report(
        self, done: int, most: int, changes: Sequence[Patch] = (), labels: Mapping[str, int] | None = None
    ) -> None:
        """Note the progress, to be called before and after each slice.

        Args:
            done: Number of slices that are done.
            most: Largest number of slices that there can be.
            changes: Rectangles that clients may show until the answer comes.
            labels: Label values by name in these rectangles.

        Raises:
            Stopped: The request is to stop, or has taken too long.
        """
        with self._guard:
            self._done, self._most = done, most
            self._changes += changes
            self._labels = labels or self._labels
        if self._keep is not None:
            what = f"what was found on {done} slices is kept" if self._keep else "nothing was changed"
            raise Stopped(self._keep, f"Stopped: {what}.")
        if self.limit and self._began is not None and time.monotonic() - self._began > self.limit:
            raise Stopped(
                True,
                f"This took longer than the {self.limit:g} s that the server allows and was stopped after "
                f"{done} of at most {most} slices; what was found is kept. Draw a box over fewer slices, or "
                "have the server started with a larger --conf time_limit.",
            )

    def news(self) -> dict[str, Any]:
        """The progress as JSON values, with the rectangles since the last call."""
        with self._guard:
            changes, self._changes = self._changes, []
            done, most, labels = self._done, self._most, dict(self._labels)
        seconds = 0.0 if self._began is None else time.monotonic() - self._began
        left = seconds / done * (most - done) if done else None
        return {
            "event": "progress",
            "done": done,
            "most": most,
            "seconds": round(seconds, 1),
            "left": None if left is None else round(left, 1),
            "changes": [patch.to_json() for patch in changes],
            "labels": labels,
        }


class Jobs:
    """The jobs of the server by user and image."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._running: dict[Key, list[Job]] = {}

    @contextmanager
    def register(self, key: Key, job: Job) -> Iterator[Job]:
        """Let a job be stopped while the block runs."""
        with self._guard:
            self._running.setdefault(key, []).append(job)
        try:
            yield job
        finally:
            with self._guard:
                self._running[key].remove(job)
                if not self._running[key]:
                    del self._running[key]

    def stop(self, key: Key, keep: bool) -> int:
        """Stop the jobs of a user on an image, and return how many there were."""
        with self._guard:
            jobs = list(self._running.get(key, []))
        for job in jobs:
            job.stop(keep)
        return len(jobs)
