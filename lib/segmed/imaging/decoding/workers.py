"""A few decoding processes, started when they are needed and replaced when they die."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import segmed
from segmed.imaging.decoding.budget import Budget, size_of
from segmed.imaging.formats.faults import ImageFault
from segmed.imaging.formats.limits import most_voxels

logger = logging.getLogger(__name__)

WORKER = (sys.executable, "-P", "-m", "segmed.imaging.decoding.worker")
_STARTS_WITHIN = 120.0  # s
_RETIRES_AFTER = 200  # files, so that what libraries leak does not add up
_OUT_OF_TIME = (
    -int(getattr(signal, "SIGPROF", 0)) or None
)  # how a process ends that has used up its processor time
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT", "TEMP", "TMP")
# each thread has a stack and an arena of its own, which count as memory
_THREADS = {
    name: "2" for name in ("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
} | {"MALLOC_ARENA_MAX": "2"}
_WHY = {
    "memory": "reading it takes more memory than its size explains",
    "time": "reading it takes longer than its size explains",
    "crash": "its reader failed",
    "other": "its reader failed",
}


class Workers:
    """Decoding processes; safe for threads.

    Args:
        most: how many files are decoded at once; further ones wait.
        budget: of each file.
        program: command line of a process.
    """

    def __init__(self, most: int = 2, budget: Budget | None = None, program: Sequence[str] = WORKER) -> None:
        self.budget = budget or Budget()
        self._program = tuple(program)
        self._turns = threading.BoundedSemaphore(most)
        self._guard = threading.Lock()
        self._idle: list[_Worker] = []

    def run(
        self, task: str, path: Path, arguments: Mapping[str, Any] | None = None, voxels: int = 0
    ) -> tuple[dict[str, Any], list[np.ndarray]]:
        """Have a file decoded.

        Args:
            task: name out of `tasks.TASKS`.
            path: of the file or folder.
            arguments: of the task.
            voxels: that the task makes beside those of the file.

        Returns:
            Facts and arrays.

        Raises:
            FileNotFoundError: nothing is there.
            ValueError: what the reader says of the file, or that it took too much memory or time.
            OSError: the result cannot be written, as the disk is full.
        """
        with self._turns, tempfile.TemporaryDirectory(prefix="decoded-") as folder:
            request: dict[str, Any] = {
                "task": task,
                "path": str(path.absolute()),
                "arguments": dict(arguments or {}),
            }
            request |= {"folder": folder, "most": most_voxels(), "voxels": voxels}
            with self._worker() as worker:
                answer = worker.ask(request, self.budget)
            if "fault" in answer:
                raise _error(answer, path.name)
            return answer["facts"], [np.load(Path(folder) / f"{n}.npy") for n in range(answer["arrays"])]

    def warm(self) -> None:
        """Start a process, so that the first file need not wait for it."""
        with self._turns, self._worker():
            pass

    def close(self) -> None:
        """End the processes that wait."""
        with self._guard:
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.close()

    @contextlib.contextmanager
    def _worker(self) -> Iterator[_Worker]:
        with self._guard:
            worker = self._idle.pop() if self._idle else None
        if worker is None or not worker.lives():
            worker = _Worker([*self._program, json.dumps(asdict(self.budget))])
        try:
            yield worker
        finally:
            if worker.lives() and worker.count < _RETIRES_AFTER:
                with self._guard:
                    self._idle.append(worker)
            else:
                worker.close()


class _Worker:
    """One process.

    Args:
        command: line that starts it.

    Attributes:
        count: files that it has been asked for.

    Raises:
        RuntimeError: it does not start.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self.count = 0
        self._late = False
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(),
            start_new_session=True,  # Ctrl+C is for the server, which closes its processes itself
        )
        with self._watch(_STARTS_WITHIN):
            if not self._message().get("ready"):
                raise RuntimeError("The process that decodes files does not start; the log tells why.")

    def ask(self, request: Mapping[str, Any], budget: Budget) -> dict[str, Any]:
        """The answer to a request; after the faults time, crash and memory the process is gone."""
        self.count += 1
        file = size_of(Path(str(request["path"])))
        known = int(request["voxels"])
        self._late = False
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            return self._gone()
        while True:
            with self._watch(budget.most_waiting(file, known)):
                message = self._message()
            if "voxels" not in message:
                break
            known = max(known, int(message["voxels"]))
        if not message:
            return self._gone()
        if message.get("fault") in ("memory", "other"):
            self.close()
        return message

    def lives(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()

    def _message(self) -> dict[str, Any]:
        """What it says next; nothing when it has ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        try:
            return dict(json.loads(line)) if line else {}
        except ValueError:
            return {}

    def _gone(self) -> dict[str, Any]:
        """The fault of a process that has ended by itself or was ended."""
        self.close()
        code = self._process.returncode
        fault = "time" if self._late or code == _OUT_OF_TIME else "crash"
        logger.warning("a file could not be decoded: the process ended by %s (%s)", code, fault)
        return {"fault": fault, "text": ""}

    @contextlib.contextmanager
    def _watch(self, seconds: float) -> Iterator[None]:
        """Kill the process if what is inside takes longer."""

        def kill() -> None:
            self._late = True
            self._process.kill()

        timer = threading.Timer(seconds, kill)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def _error(answer: Mapping[str, Any], name: str) -> Exception:
    fault, text = answer["fault"], answer["text"]
    if fault == "missing":
        return FileNotFoundError(text)
    if fault == "value":
        return ValueError(text)
    if fault == "os":
        return OSError(answer["errno"], text)
    return ImageFault(
        f"The image {name} cannot be read: {_WHY[fault]}, as of a damaged file. Allowed are files that "
        "unpack to what their headers say. Export it again from its source, uncompressed if that can be "
        "chosen."
    )


def _environment() -> dict[str, str]:
    """Where Python and the readers are, and nothing that the server alone should know."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    paths = [str(Path(segmed.__file__).parents[1]), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return {
        **kept,
        **_THREADS,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "TMPDIR": tempfile.gettempdir(),
    }
