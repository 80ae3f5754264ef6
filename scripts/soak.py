#!/usr/bin/env python
"""Many users at one server for a long time: every answer is checked, and what the process takes is watched.

Each client works on an image of its own, where it knows every voxel of its label map, and prompts on images
of all. Prints a JSON summary; ends with 1 where an answer was wrong, a save was lost, a request took longer
than 30 s, or memory, file handles or threads grew. Usage: python scripts/soak.py [--minutes 10] [--clients
16] [--seed 0]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import psutil
from bench_serve import Server
from soak_client import HANGS, Client, Seen

SHAPE = (64, 56, 12)
SHARED = 8  # images on which everybody prompts
GROWTH = 0.10  # of memory, after the warm-up


def write_studies(folder: Path, clients: int) -> None:
    """Small volumes with a bright block each: some for all, one for each client."""
    rng = np.random.default_rng(0)
    for name in [*(f"shared{n}" for n in range(SHARED)), *(f"own{n}" for n in range(clients))]:
        image = rng.normal(100, 10, SHAPE).astype(np.int16)
        i, j = (int(rng.integers(5, size // 3)) for size in SHAPE[:2])
        image[i : i + 24, j : j + 20, 2:10] += 250
        nib.save(nib.Nifti1Image(image, np.diag([2.0, 2.0, 4.0, 1.0])), folder / f"{name}.nii.gz")


class Watch(threading.Thread):
    """Looks at a process once a second.

    Args:
        pid: of the server; processes that it starts are left out.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._process = psutil.Process(pid)
        self.rows: list[tuple[float, int, int, int]] = []
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.wait(1.0):
            self.look()

    def look(self) -> tuple[float, int, int, int]:
        """Time in s, resident bytes, open files and sockets, threads."""
        one = self._process
        row = time.monotonic(), one.memory_info().rss, one.num_fds(), one.num_threads()
        self.rows.append(row)
        return row

    def change(self, warm_up: float) -> dict[str, Any]:
        """What was taken after `warm_up` seconds, and in the last tenth of the time."""
        begun = self.rows[0][0]
        rest = [row for row in self.rows if row[0] - begun >= warm_up] or self.rows[-1:]
        few = max(1, len(rest) // 10)
        then, now = rest[:few], rest[-few:]
        told: dict[str, Any] = {"warm_up_s": round(warm_up)}
        for n, name in enumerate(("rss_mib", "handles", "threads"), start=1):
            scale = 2**20 if n == 1 else 1
            told[name] = [round(statistics.median(row[n] for row in part) / scale) for part in (then, now)]
        told["rss_growth"] = round(told["rss_mib"][1] / told["rss_mib"][0] - 1, 3)
        return told


def drive(
    url: str, clients: int, seed: int, seconds: float, most: int | None = None
) -> tuple[list[Client], Seen]:
    """Have clients ask until the time is over, or so many requests were made; then look at every label once
    more."""
    seen = Seen(most)
    until = time.monotonic() + seconds
    workers = [Client(url, n, SHAPE, SHARED, seed, seen) for n in range(clients)]
    threads = [threading.Thread(target=worker.work, args=(until,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for worker in workers:
        worker.check_saved()
    return workers, seen


def lost_on_disk(studies: Path, clients: list[Client]) -> list[str]:
    """Labels whose files are not what their clients saved last."""
    wrong = []
    for client in clients:
        if client.saved is not None:
            file = studies / "labels" / "final" / f"{client.own}.nii.gz"
            kept = np.asarray(nib.load(file).dataobj) if file.is_file() else None
            if kept is None or not np.array_equal(kept, client.saved):
                wrong.append(client.own)
    return wrong


def summary(seen: Seen, seconds: float) -> dict[str, Any]:
    """Counts and times of requests."""
    times: dict[str, list[float]] = defaultdict(list)
    for kind, _, took in seen.answers:
        times[kind].append(took)
    statuses = Counter(str(status) for _, status, _ in seen.answers)
    return {
        "seconds": round(seconds),
        "requests": len(seen.answers),
        "statuses": dict(sorted(statuses.items())),
        "saves": sum(kind in ("save", "submit") and status == 200 for kind, status, _ in seen.answers),
        "faults": seen.faults[:20],
        "slowest_s": round(max(took for _, _, took in seen.answers), 2),
        "ms": {
            kind: {
                "count": len(all_),
                "median": round(1e3 * statistics.median(all_)),
                "p95": round(1e3 * sorted(all_)[int(0.95 * (len(all_) - 1))]),
            }
            for kind, all_ in sorted(times.items())
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10, help="60 for a long run")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        studies = Path(folder) / "studies"
        studies.mkdir()
        write_studies(studies, arguments.clients)
        server = Server(studies, registry=f"{folder}/registry")
        try:
            watch = Watch(server.process.pid)
            watch.start()
            seconds = 60 * arguments.minutes
            workers, seen = drive(server.url, arguments.clients, arguments.seed, seconds)
            watch.done.set()
            alive = server.process.poll() is None
        finally:
            server.close()
        told = summary(seen, seconds) | watch.change(min(120.0, seconds / 4))
        told["lost_on_disk"] = lost_on_disk(studies, workers)
    print(json.dumps(told, indent=1))
    # a pool of threads and sockets may still be filling when the warm-up ends
    flat = told["handles"][1] <= told["handles"][0] + 8 and told["threads"][1] <= told["threads"][0] + 8
    right = alive and not told["faults"] and not told["lost_on_disk"] and told["slowest_s"] <= HANGS
    if not (right and flat and told["rss_growth"] <= GROWTH):
        sys.exit(1)


if __name__ == "__main__":
    main()
