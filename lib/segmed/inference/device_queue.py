"""A queue for a device: one worker thread that runs tasks in the order of their arrival."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from segmed.inference.cancelling import raise_if_cancelled

T = TypeVar("T")


class DeviceQueue:
    """One worker thread per device that runs tasks in the order of their arrival, so that no request starves.

    It also keeps PyTorch to a single team of CPU threads; several teams wait for each other at every barrier.
    """

    def __init__(self) -> None:
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="device")

    def run(self, work: Callable[[], T]) -> T:
        """Run `work` when its turn comes, wait for it, and return its result or raise its error.

        Raises:
            Cancelled: Nobody waits for the result any more, see `cancelled_by`.
        """
        raise_if_cancelled()
        return self._worker.submit(work).result()
