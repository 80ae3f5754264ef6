#!/usr/bin/env python
"""How much faster two workers of Ray are than one on the jobs of a benchmark.

    python scripts/bench_workers.py ../shared/datasets/lgg

Jobs that segment and train nothing, one thread each: once one after the other in this process, then two at a
time, with the start of Ray in its time.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch
from segmed.benchmark.ray_runner import run_jobs
from segmed.benchmark.settings import BenchmarkJob, Budget
from segmed.benchmark.tables import Entry


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path, help="folder of LGG")
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--patients", type=int, default=40)
    parser.add_argument("--method", default="sam", help="that is asked with boxes")
    a = parser.parse_args()
    torch.set_num_threads(1)
    seconds = {}
    for workers in (1, 2):
        with tempfile.TemporaryDirectory() as out:
            jobs = [
                BenchmarkJob(
                    "lgg-sam",
                    Entry(a.method, a.method, train=False),
                    seed,
                    {"lgg": str(a.root.resolve())},
                    Path(out),
                    budget=Budget(patients=a.patients),
                )
                for seed in range(a.jobs)
            ]
            begun = time.perf_counter()
            results = run_jobs(jobs, workers)
            seconds[workers] = time.perf_counter() - begun
            for result in results:
                if "error" in result:
                    raise RuntimeError(result["error"])
    slices = results[0]["slices"][2]
    print(
        f"{a.jobs} jobs of {slices} test slices and a curve of boxes: {seconds[1]:.0f} s by one worker, ",
        end="",
    )
    print(f"{seconds[2]:.0f} s by two: {seconds[1] / seconds[2]:.2f} x as fast")


if __name__ == "__main__":
    main()
