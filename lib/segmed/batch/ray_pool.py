"""Workers in processes of Ray, on this machine or on a cluster; each one holds a model."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from segmed.batch.pools import process_whole
from segmed.batch.tasks import Ending, Outcome, Task, Worker, WorkerFactory
from segmed.benchmark.ray_session import ray_session


class BatchActor:
    """The remote side: makes its worker at the first task, so that errors of it have a sentence.

    Args:
        factory: Function that makes the worker.
        threads: Number of PyTorch threads.
    """

    def __init__(self, factory: WorkerFactory, threads: int) -> None:
        self._factory, self._threads = factory, threads
        self._worker: Worker | None = None

    def process(self, task: Task) -> tuple[Outcome | None, str]:
        """Process a task; gives its outcome, or a sentence if there can be no worker."""
        if self._worker is None:
            import torch

            torch.set_num_threads(self._threads)
            try:
                self._worker = self._factory()
            except (ValueError, OSError) as error:
                return None, str(error)
        return process_whole(self._worker, task), ""


class RayPool:
    """Actors of Ray, one task each; a worker that dies is replaced, and its item counts as crashed.

    Args:
        factory: Function that makes a worker; it is sent to the actors.
        workers: Number of actors.
        address: Address of a cluster, or "" for this machine.
        gpus: Share of a GPU that each actor takes.
        threads: Number of PyTorch threads of each actor.

    Raises:
        ValueError: Ray is not installed, or there is no cluster at the address.
    """

    def __init__(
        self, factory: WorkerFactory, workers: int, address: str = "", gpus: float = 0.0, threads: int = 1
    ) -> None:
        self._stack = ExitStack()
        self._ray = self._stack.enter_context(ray_session(workers, address))
        remote = self._ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=0)(BatchActor)
        self._start = lambda: remote.remote(factory, threads)
        self._idle: list[Any] = [self._start() for _ in range(workers)]
        self._running: dict[Any, tuple[Any, Task]] = {}

    def free(self) -> int:
        """See `Pool`."""
        return len(self._idle)

    def submit(self, task: Task) -> None:
        """See `Pool`."""
        actor = self._idle.pop()
        self._running[actor.process.remote(task)] = actor, task

    def wait(self, seconds: float) -> list[Outcome]:
        """See `Pool`.

        Raises:
            ValueError: A worker cannot be made, for instance because a machine of the cluster lacks the
                weights.
        """
        if not self._running:
            return []
        done, rest = self._ray.wait(list(self._running), num_returns=1, timeout=seconds)
        if rest:
            done += self._ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        return [self._outcome(reference) for reference in done]

    def close(self) -> None:
        """See `Pool`."""
        self._stack.close()

    def _outcome(self, reference: Any) -> Outcome:
        actor, task = self._running.pop(reference)
        try:
            found, fault = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            self._idle.append(self._start())
            why = f"Its worker died ({type(error).__name__}); memory may have run out."
            return Outcome(task.item, Ending.CRASHED, why)
        if found is None:
            raise ValueError(f"A worker cannot start: {fault}")
        self._idle.append(actor)
        return found
