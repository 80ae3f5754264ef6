"""Turns on a device: one worker thread that serves in the order of coming."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class DeviceQueue:
    """One worker thread per device, which serves in the order of coming: nobody starves behind a long volume.

    It also keeps PyTorch to a single team of CPU threads; several teams wait for each other at every barrier.
    """

    def __init__(self) -> None:
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="device")

    def run(self, work: Callable[[], T]) -> T:
        """Do `work` on the device's turn; its errors are raised here."""
        return self._worker.submit(work).result()
