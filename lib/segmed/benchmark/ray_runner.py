"""Parallel jobs on Ray, on this machine or on a cluster; results of finished jobs are on disk."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from segmed.benchmark.job import run_job
from segmed.benchmark.settings import PROGRESS, BenchmarkJob

Result = dict[str, Any]
Tell = Callable[[Sequence[float], str], None]
_POLL_SECONDS = 1.0  # time between two reports of progress
_RETRIES = 3  # retries of a job whose worker dies
_STORE_BYTES = 100 * 2**20  # size of the object store; jobs return small dictionaries only


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
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # no usage statistics are sent
    if not address:
        os.environ |= {
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # keeps Ray to the loopback interface, on Linux as well
            "RAY_AUTH_MODE": "token",  # only this process can submit jobs
            "RAY_AUTH_TOKEN": secrets.token_hex(32),  # otherwise Ray writes one to the home folder
            "RAY_worker_niceness": "0",  # by default workers have a lower priority than other programs
        }
    try:
        import ray
    except ImportError as error:
        raise ValueError(
            "Jobs side by side need Ray, which is not installed: pip install 'segmed[cluster]', or -r "
            "requirements-cluster.txt in a checkout. Or run one job at a time."
        ) from error

    temporary = "" if address else tempfile.mkdtemp(prefix="segmed-ray-")
    try:
        if address:
            try:
                ray.init(address, log_to_driver=False)
            except Exception as error:
                raise ValueError(
                    f"There is no Ray cluster at {address!r} ({error!s:.200}). Start one with `ray start "
                    "--head`, or leave --ray-address out to use this machine."
                ) from error
        else:
            ray.init(
                "local",
                num_cpus=workers,
                include_dashboard=False,
                log_to_driver=False,
                object_store_memory=_STORE_BYTES,
                _node_ip_address="127.0.0.1",
                _temp_dir=temporary,
            )
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
    finally:
        ray.shutdown()
        if temporary:
            shutil.rmtree(temporary, ignore_errors=True)


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
