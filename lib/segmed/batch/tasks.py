"""What the scheduler gives to a worker, and what it gets back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol


class Phase(StrEnum):
    """What is to be done with an item."""

    SEGMENT = "segment"
    SEND = "send"  # its files are written, and the PACS does not have them yet


class Ending(StrEnum):
    """How a task ended."""

    DONE = "done"
    WRITTEN = "written"  # the files are on the disk and have to be sent
    FAILED = "failed"  # the item cannot be processed, and would fail again
    CRASHED = "crashed"  # unexpected; the item is tried again a few times
    AWAY = "away"  # the PACS does not answer; the item waits
    FULL = "full"  # the disk is full; the run stops


@dataclass(frozen=True)
class Task:
    """One item for a worker.

    Attributes:
        item: Number of the item in the manifest.
        key: What identifies the item: path relative to its folder, or SeriesInstanceUID.
        name: Name of its outputs without extension; may contain folders.
        source: Where the image is, JSON values.
        size: Estimated memory that it takes, in bytes.
        phase: What is to be done.
        tries: How often it was tried before.
    """

    item: int
    key: str
    name: str
    source: Mapping[str, Any]
    size: int
    phase: Phase = Phase.SEGMENT
    tries: int = 0


@dataclass(frozen=True)
class Outcome:
    """The end of a task.

    Attributes:
        item: Number of the item.
        ending: How it ended.
        error: A sentence for the user, or "".
        image: SHA-256 of the image.
        outputs: SHA-256 of the written files by their paths relative to the folder of the run.
        measurements: Rows of the table of measurements.
        seconds: Time that the worker took.
    """

    item: int
    ending: Ending
    error: str = ""
    image: str = ""
    outputs: Mapping[str, str] = field(default_factory=dict)
    measurements: tuple[Mapping[str, Any], ...] = ()
    seconds: float = 0.0


class Worker(Protocol):
    """Processes items in three steps, which may run in different threads but never twice at a time.

    Steps raise what goes wrong; `outcome_of` sorts errors.
    """

    def read(self, task: Task) -> Any:
        """Fetch and decode."""

    def segment(self, read: Any) -> Any:
        """Run the model."""

    def finish(self, segmented: Any) -> Outcome:
        """Write, measure and send."""

    def discard(self, task: Task) -> None:
        """Remove what was kept for a task; called once at its end, also after an error."""


WorkerFactory = Callable[[], Worker]


class Away(OSError):
    """A PACS that cannot be reached now, and is worth asking again later."""
