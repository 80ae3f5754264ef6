#!/usr/bin/env python
"""What a server takes when it has nothing to do, and after thousands of mixed requests.

Prints a Markdown table: resident memory, open files and threads when it is ready, a while later, after the
first tenth of the requests and after all of them. Usage: python scripts/bench_memory.py [--requests 10000]
[--clients 8]

With `--retrainings 50`, what a server keeps of retrainings is measured in this process instead: its engine,
registry, state of active learning and scorer, with new random weights in the place of each training, which a
server does in a process of its own. Every version is promoted, loaded and scores all images; the version
before is given up. `--owners` adds the lines of the program whose memory grew (tracemalloc; slower).
`simulate_annotation.py --stress` measures a server with real trainings.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import torch
from bench_serve import Server
from PIL import Image
from segmed.active.retraining import Job, Outcome, Retraining
from segmed.active.store.database import Database
from segmed.active.store.labels import LabelLog
from segmed.active.store.state import ActiveState
from segmed.evaluation.case_scores import CaseScore
from segmed.inference.loading import find_method
from segmed.methods.base.trainable import save_trained
from segmed.registry.model_version import DataFingerprint, VersionRecord
from segmed.registry.versions import Registry
from soak import Watch, drive, write_studies

IDLE = 20.0  # s
IMAGES, SIDE = 6, 32  # of --retrainings


class NewWeights:
    """The steps of a retraining that draws its weights; see `active.retraining.Steps`."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    def train(self, job: Job) -> None:
        return

    def outcome(self, job: Job) -> Outcome | None:
        return None

    def judge(self, job: Job) -> Outcome:
        training = find_method("unet").training
        assert training is not None
        torch.manual_seed(job.id)
        config = training.config(labels=("disc",), encoder="resnet18", input_size=SIDE)
        network = training.kind(None, config, "")
        data = DataFingerprint(("a",), {}, {"train": ("a",)})
        record = VersionRecord((CaseScore("a", "disc", 0.9, 1.0),), data, {"job": job.id})
        added = self.registry.add("unet", lambda folder: save_trained(network, folder, ""), record)
        self.registry.promote("unet", added.version)
        return Outcome(True, added.version)


def retrainings(folder: Path, count: int, owners: bool) -> Iterator[float]:
    """Resident memory in MiB after each retraining."""
    from segmed.server.config.settings import ServerSettings
    from segmed.server.engine import Engine
    from segmed.server.learning.scoring import BackgroundScorer, Places
    from segmed.server.learning.throttle import Throttle

    rng, files = np.random.default_rng(0), {}
    for n in range(IMAGES):
        files[f"i{n}"] = folder / f"i{n}.png"
        Image.fromarray(rng.integers(0, 255, (SIDE, SIDE), np.uint8)).save(files[f"i{n}"])
    settings = ServerSettings.from_conf({"models": "unet", "registry": str(folder / "models")})
    registry = Registry(folder / "models")
    engine, database = Engine(settings, registry), Database(folder / "state")
    state, log, jobs = ActiveState(database), LabelLog(database), Retraining(database)
    marks, throttle = dict.fromkeys(files, "1"), Throttle(1.0, 0.0, 0.0)
    scorer = BackgroundScorer(engine, state, throttle, files.__getitem__, lambda: marks, Places)
    state.observe(marks, ())
    for n in range(count):
        name = f"i{n % IMAGES}"
        log.record(name, "user", hashlib.sha256(bytes([n])).hexdigest(), {"disc": 10 + n})
        job = jobs.reserve("unet", "so many labels are new")
        assert job is not None
        jobs.carry_out(job, NewWeights(registry))
        while scorer.step():
            pass
        if owners and n == count // 5:
            tracemalloc.start(12)
            before = tracemalloc.take_snapshot()
        yield psutil.Process().memory_info().rss / 2**20
    if owners:
        for line in tracemalloc.take_snapshot().compare_to(before, "lineno")[:12]:
            print(line)


def measure_retrainings(count: int, owners: bool) -> None:
    """Print how the memory goes over retrainings."""
    with tempfile.TemporaryDirectory() as folder:
        seen = []
        for number, mib in enumerate(retrainings(Path(folder), count, owners), 1):
            seen.append(mib)
            print(f"{number}: {mib:.1f} MiB", file=sys.stderr, flush=True)
    rss = np.array(seen)
    late = count // 5
    slope = np.polyfit(np.arange(count)[late:], rss[late:], 1)[0]
    print(
        f"{count} retrainings, each promoted, and {IMAGES} images scored after each: {rss[0]:.0f} MiB after "
        f"the first, {rss[late]:.0f} after {late + 1}, {rss[-1]:.0f} at the end; {slope:+.2f} MiB "
        "a retraining after the first fifth"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--retrainings", type=int, default=0, help="in this process, in place of requests")
    parser.add_argument("--owners", action="store_true", help="with --retrainings")
    arguments = parser.parse_args()
    if arguments.retrainings:
        measure_retrainings(arguments.retrainings, arguments.owners)
        return
    with tempfile.TemporaryDirectory() as folder:
        empty, studies = Path(folder) / "empty", Path(folder) / "studies"
        empty.mkdir()
        studies.mkdir()
        write_studies(studies, arguments.clients)
        rows = []
        server = Server(empty, registry=f"{folder}/registry")
        try:
            rows.append(("ready, no images", Watch(server.process.pid).look()))
        finally:
            server.close()
        server = Server(studies, registry=f"{folder}/registry")
        try:
            watch = Watch(server.process.pid)
            rows.append(("ready", watch.look()))
            time.sleep(IDLE)
            rows.append((f"{IDLE:.0f} s later, images are being scored", watch.look()))
            faults, made = [], 0
            for share in (0.1, 1.0):
                most = int(share * arguments.requests) - made
                _, seen = drive(server.url, arguments.clients, int(10 * share), 24 * 3600.0, most)
                faults += seen.faults
                made += len(seen.answers)
                rows.append((f"after {made:,} requests", watch.look()))
        finally:
            server.close()
    print("| | memory, MiB | files and sockets | threads |\n|---|---|---|---|")
    for name, (_, memory, handles, threads) in rows:
        print(f"| {name} | {memory / 2**20:.0f} | {handles} | {threads} |")
    growth = rows[-1][1][1] / rows[-2][1][1] - 1
    print(f"\nGrowth from the first tenth of the requests to the last: {growth:+.1%} (target ≤ +10 %)")
    print(f"Answers that were wrong: {len(faults)}", *faults[:5], sep="\n")


if __name__ == "__main__":
    main()
