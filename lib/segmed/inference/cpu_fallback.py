"""What takes over when the memory of a GPU is full in the middle of the work."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import torch

from segmed.inference.device_queue import DeviceQueue
from segmed.methods.base.segmenter import Segmenter

logger = logging.getLogger(__name__)


def no_memory_left(device: str, method: str) -> str:
    """What users are told when a method runs on the CPU because a GPU has no memory left."""
    return (
        f"{device} has no memory left for {method}, which therefore runs on the CPU, more slowly. "
        "End other programs on the GPU, or take smaller weights, and start again."
    )


class CpuFallback:
    """The same method on the CPU, which is loaded when the GPU has no memory left for a step.

    Args:
        method: name of the method.
        device: the GPU, such as `cuda:0`.
        load: loads the method on the CPU, and gives the queue of the CPU.
    """

    def __init__(self, method: str, device: str, load: Callable[[], tuple[Segmenter, DeviceQueue]]) -> None:
        self.warning = no_memory_left(device, method)
        self._load = load
        self._found: tuple[Segmenter, DeviceQueue] | None = None
        self._lock = threading.Lock()

    def take_over(self, error: torch.OutOfMemoryError) -> tuple[Segmenter, DeviceQueue]:
        """The method on the CPU and its queue; requests that fail at the same time get the same one.

        Raises:
            ValueError: the weights cannot be used any more.
            FileNotFoundError: the weights are not there any more.
        """
        with self._lock:
            if self._found is None:
                logger.warning("%s %s", self.warning, error)
                torch.cuda.empty_cache()  # for the other methods on the GPU
                self._found = self._load()
            return self._found
