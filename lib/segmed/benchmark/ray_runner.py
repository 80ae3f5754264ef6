"""Parallel jobs on Ray, on this machine or on a cluster; results of finished jobs are on disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from segmed.benchmark.job import run_job
from segmed.benchmark.ray_session import ray_session
from segmed.benchmark.settings import PROGRESS, BenchmarkJob

Result = dict[str, Any]
Tell = Callable[[Sequence[float], str], None]
_POLL_SECONDS = 1.0  # time between two reports of progress
_RETRIES = 3  # retries of a job whose worker dies


def run_jobs(
    jobs: Sequence[BenchmarkJob], workers: int = 1, address: str = "", tell: Tell | None = None
) -> list[Result]:
    """Run all jobs, in this process for one worker, otherwise on Ray.

    A job whose worker dies is run again by another one from its last checkpoint. On a cluster, all machines
    need the data and the folder of results at the same paths.

    Args:
        jobs: The jobs, in the order of their start.
        workers: Number of parallel workers; several workers use one PyTorch thread each.
        address: Address of a Ray cluster, or "" for this machine.
        tell: Function called from time to time with the share of each job that is done, and the state of one
            of them.

    Returns:
        The results of `run_job`, in the order of the jobs.

    Raises:
        ValueError: If there is no worker, or no cluster at the address.
    """
    if workers < 1:
        raise ValueError(f"workers is {workers}; give at least 1.")
    if workers == 1 and not address:
        results = []
        for n, job in enumerate(jobs):
            if tell:
                tell([1.0] * n + [0.0] * (len(jobs) - n), f"{job.table}, {job.entry.name}")
            results.append(run_job(job, _watch(tell, jobs, n) if tell else None))
        return results
    return _run_on_ray(jobs, workers, address, tell)


def _run_on_ray(jobs: Sequence[BenchmarkJob], workers: int, address: str, tell: Tell | None) -> list[Result]:
    with ray_session(workers, address) as ray:
        gpus = torch.cuda.device_count() / workers if any(job.device != "cpu" for job in jobs) else 0
        remote: Any = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=_RETRIES)(run_job)
        waiting = [remote.remote(replace(job, threads=1)) for job in jobs]
        place = {reference: n for n, reference in enumerate(waiting)}
        results: dict[int, Result] = {}
        while waiting:
            done, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=_POLL_SECONDS)
            for reference in done:
                n = place[reference]
                try:
                    results[n] = ray.get(reference)
                except ray.exceptions.RayError as error:
                    died = f"Its worker died {_RETRIES + 1} times ({type(error).__name__})"
                    why = f"{died}; memory may have run out."
                    results[n] = {
                        "settings": jobs[n].settings,
                        "error": f"{why} Give fewer --workers and run again.",
                    }
            if tell:
                tell(*_state(jobs, set(results)))
        return [results[n] for n in range(len(jobs))]


def _watch(tell: Tell, jobs: Sequence[BenchmarkJob], place: int) -> Callable[[], bool]:
    """A `stop` function for trainings that reports the progress and never stops."""
    done = set(range(place))

    def stop() -> bool:
        tell(*_state(jobs, done))
        return False

    return stop


def _state(jobs: Sequence[BenchmarkJob], done: set[int]) -> tuple[list[float], str]:
    """The share of each job that is done, and a description of the last job with a progress file."""
    shares, doing = [], ""
    for n, job in enumerate(jobs):
        share = 1.0
        if n not in done:
            try:
                progress = json.loads((job.folder / PROGRESS).read_text(encoding="utf-8"))
                share, doing = float(progress["share"]), f"{job.table}, {job.entry.name}: {progress['what']}"
            except (OSError, ValueError, KeyError):
                share = 0.0
        shares.append(share)
    return shares, doing
