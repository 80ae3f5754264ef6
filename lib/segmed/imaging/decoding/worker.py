"""The decoding process: requests as lines of JSON on its input, answers on what was its output.

Started by `workers.Workers` as `python -m segmed.imaging.decoding.worker`. It imports readers only, so that
limits on its memory can be tight, and it may be killed at any moment. Memory is limited on Linux, processor
time on macOS too; on Windows, the time on the clock, which the server watches, remains.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import psutil

from segmed.imaging.decoding.budget import Budget, size_of
from segmed.imaging.decoding.tasks import TASKS
from segmed.imaging.formats.limits import follow_sizes, set_most_voxels

try:
    import resource
    import signal
except ImportError:  # pragma: no cover - Windows
    resource = signal = None  # type: ignore[assignment]

# macOS counts the address space of shared caches and does not enforce the limit
_LIMITS_MEMORY = platform.system() == "Linux"
_MEMORY_WORDS = ("bad_alloc", "failed to allocate", "out of memory", "cannot allocate", "unable to allocate")


class _Meter:
    """Limits of this process for the file that is being read; widened when its header tells of voxels."""

    def __init__(self, budget: Budget, channel: TextIO) -> None:
        self._budget, self._channel = budget, channel
        self._file = self._voxels = 0
        self._memory, self._began = 0, 0.0

    def start(self, file: int, voxels: int) -> None:
        """Begin with a file of so many bytes; so many voxels are known to come anyway."""
        self._file, self._voxels = file, voxels
        self._memory, self._began = psutil.Process().memory_info().vms, time.process_time()
        self._limit()

    def add(self, voxels: int) -> None:
        """The header tells of an image."""
        self._voxels += voxels
        self._limit()
        _say(self._channel, {"voxels": self._voxels})

    def stop(self) -> None:
        """The file has been read."""
        if resource is not None:
            if _LIMITS_MEMORY:
                resource.setrlimit(resource.RLIMIT_AS, (_hard(), _hard()))
            signal.setitimer(signal.ITIMER_PROF, 0)

    def _limit(self) -> None:
        if resource is None:
            return
        if _LIMITS_MEMORY:
            most = self._memory + self._budget.most_memory(self._file, self._voxels)
            resource.setrlimit(resource.RLIMIT_AS, (most if _hard() < 0 else min(most, _hard()), _hard()))
        left = self._budget.most_seconds(self._file, self._voxels) - (time.process_time() - self._began)
        signal.setitimer(signal.ITIMER_PROF, max(left, 0.001))  # its signal ends the process, wherever it is


def _hard() -> int:
    """Address space that this process may never have more of; below 0 where there is no such limit."""
    return resource.getrlimit(resource.RLIMIT_AS)[1]


def main() -> None:
    """Answer until the input ends."""
    logging.basicConfig(level=logging.WARNING, format="[decoding] %(message)s")
    channel = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # whatever libraries print
    with contextlib.suppress(
        OSError
    ):  # where memory runs out all the same, this process goes and not the server
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    budget = Budget(**json.loads(sys.argv[1])) if len(sys.argv) > 1 else Budget()
    meter = _Meter(budget, channel)
    follow_sizes(meter.add)
    _say(channel, {"ready": True})
    for line in sys.stdin:
        _say(channel, _answer(json.loads(line), meter))


def _answer(request: Mapping[str, Any], meter: _Meter) -> dict[str, Any]:
    path, folder = Path(request["path"]), Path(request["folder"])
    set_most_voxels(request["most"])
    meter.start(size_of(path), request["voxels"])
    try:
        facts, arrays = TASKS[request["task"]](path, **request["arguments"])
        for n, array in enumerate(arrays):
            np.save(folder / f"{n}.npy", array, allow_pickle=False)
        return {"facts": facts, "arrays": len(arrays)}
    except Exception as error:
        return _fault(error)
    finally:
        meter.stop()


def _fault(error: Exception) -> dict[str, Any]:
    """What went wrong, as the server raises it again."""
    if any(isinstance(one, MemoryError) or _tells_of_memory(one) for one in _causes(error)):
        return {"fault": "memory", "text": ""}
    if isinstance(error, FileNotFoundError):
        return {"fault": "missing", "text": str(error)}
    if isinstance(error, ValueError):
        return {"fault": "value", "text": str(error)}
    if isinstance(error, OSError):
        return {"fault": "os", "text": error.strerror or str(error), "errno": error.errno or 0}
    traceback.print_exc()
    return {"fault": "other", "text": type(error).__name__}


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _tells_of_memory(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _MEMORY_WORDS)


def _say(channel: TextIO, message: Mapping[str, Any]) -> None:
    channel.write(json.dumps(message) + "\n")
    channel.flush()


if __name__ == "__main__":
    main()
