"""Where tasks run: in threads of this process, or in the processes of Ray (`ray_pool`)."""

from __future__ import annotations

import errno
import queue
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

from segmed.batch.tasks import Away, Ending, Outcome, Task, Worker, WorkerFactory

_IN_STEPS = 4  # items in the three steps of one worker, of which one waits for the model
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class Pool(Protocol):
    """Workers that take tasks."""

    def free(self) -> int:
        """Number of tasks that can be given now."""

    def submit(self, task: Task) -> None:
        """Give a task, which must be less than `free`."""

    def wait(self, seconds: float) -> list[Outcome]:
        """Tasks that ended, at least one unless the time is over."""

    def close(self) -> None:
        """End the workers."""


class ThreadPool:
    """One worker in this process: while the model runs, the next image is read and the last one is written.

    Args:
        factory: Function that makes the worker.
    """

    def __init__(self, factory: WorkerFactory) -> None:
        self._worker: Worker = factory()
        self._steps = [ThreadPoolExecutor(1, f"batch-{name}") for name in ("read", "model", "write")]
        self._ended: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._running = 0

    def free(self) -> int:
        """See `Pool`."""
        return _IN_STEPS - self._running

    def submit(self, task: Task) -> None:
        """See `Pool`."""
        self._running += 1
        begun = time.monotonic()
        reading, model, writing = self._steps
        first = reading.submit(self._worker.read, task)
        second = model.submit(lambda: self._worker.segment(first.result()))
        third = writing.submit(lambda: self._worker.finish(second.result()))
        third.add_done_callback(lambda done: self._end(task, done, begun))

    def wait(self, seconds: float) -> list[Outcome]:
        """See `Pool`."""
        found: list[Outcome] = []
        try:
            found.append(self._ended.get(timeout=seconds))
            while True:
                found.append(self._ended.get_nowait())
        except queue.Empty:
            pass
        self._running -= len(found)
        return found

    def close(self) -> None:
        """See `Pool`."""
        for step in self._steps:
            step.shutdown(wait=True, cancel_futures=True)

    def _end(self, task: Task, done: Future[Outcome], begun: float) -> None:
        if done.cancelled():  # the run ends with an error
            return
        self._worker.discard(task)
        error = done.exception()
        self._ended.put(done.result() if error is None else outcome_of(task, error, time.monotonic() - begun))


def process_whole(worker: Worker, task: Task) -> Outcome:
    """All steps of a task in this thread; errors become outcomes."""
    begun = time.monotonic()
    step: Callable[[Any], Any]
    found: Any = task
    try:
        for step in (worker.read, worker.segment, worker.finish):
            found = step(found)
        assert isinstance(found, Outcome)
        return found
    except Exception as error:
        return outcome_of(task, error, time.monotonic() - begun)
    finally:
        worker.discard(task)


def outcome_of(task: Task, error: BaseException, seconds: float) -> Outcome:
    """What an error means for its item."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, Away):
        ending = Ending.AWAY
    elif isinstance(error, OSError) and error.errno in _NO_ROOM:
        ending, text = Ending.FULL, f"The disk is full ({error.strerror})."
    elif isinstance(error, ValueError | OSError):
        ending = Ending.FAILED
    else:
        ending, text = Ending.CRASHED, f"{type(error).__name__}: {text}"
    return Outcome(task.item, ending, text[:1000], seconds=seconds)
