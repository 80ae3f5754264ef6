"""Speed and memory of what runs on a device, beside the most that the device can do."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

FORMATS = {"fp32": torch.float32, "bf16": torch.bfloat16}
REPEATS = 5


class Roofline:
    """The most that a device can do, once `measure` has found it out.

    Args:
        device: what is measured.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.rates: dict[str, float] = {}
        self.bandwidth = 0.0

    def measure(self, side: int, copied: int) -> dict[str, float]:
        """Rate of a matrix product in each format, and bandwidth of copies.

        Args:
            side: of the square matrices.
            copied: bytes.
        """
        found = {}
        for name, dtype in FORMATS.items():
            a, b = (torch.randn(side, side, device=self.device).to(dtype) for _ in range(2))
            self.rates[name] = 2 * side**3 / fastest(self.device, lambda a=a, b=b: a @ b)
            found[f"{name}_tflops"] = self.rates[name] / 1e12
        source = torch.empty(copied, dtype=torch.uint8, device=self.device)
        target = torch.empty_like(source)
        self.bandwidth = 2 * copied / fastest(self.device, lambda: target.copy_(source))
        return found | {"gb_per_s": self.bandwidth / 1e9}

    def share(self, name: str, work: int, weights: int, seconds: float) -> dict[str, float]:
        """Share of the roofline that was reached; empty if the roofline could not be measured."""
        if name not in self.rates or not self.bandwidth:
            return {}
        bound = max(work / self.rates[name], weights / self.bandwidth)
        return {"tflops": work / seconds / 1e12, "share_of_roofline": bound / seconds}


def fastest(device: torch.device, run: Callable[[], Any]) -> float:
    """Seconds of the fastest of some runs, after one to warm up."""
    times = []
    for _ in range(REPEATS + 1):
        wait(device)
        start = time.perf_counter()
        run()
        wait(device)
        times.append(time.perf_counter() - start)
    return min(times[1:])


def wait(device: torch.device) -> None:
    """Wait until the device has done what it was given; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def largest_memory(device: torch.device) -> Iterator[Callable[[], float]]:
    """A function that gives the largest memory so far, in MiB: of the GPU, else of the process."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        yield lambda: torch.cuda.max_memory_allocated(device) / 2**20
    else:
        yield lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
