#!/usr/bin/env python
"""What active learning costs beside the work of users: Next Sample, an idle server, and scoring during
inference.

Everything goes through HTTP to `segmed serve` with the embedded default model on small pictures, of which one
in twenty has a label. Scores and embeddings (512 values, as SAM's) of all of them are written into the state
beforehand, since making them would take hours. Prints a Markdown table. Usage: python scripts/bench_active.py
[--images 10000]
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import requests
import torch
from bench_serve import SHAPE, Server
from PIL import Image
from segmed.active.scoring.strategies import STRATEGIES
from segmed.active.store.database import Database
from segmed.active.tables.images import ImageRepository
from segmed.active.tables.scores import ScoreRepository, ScoringCost, StoredScores

SIDE = 64
EMBEDDING = 512  # of SAM; the default model has 256
LABELLED = 20  # one in so many
ASKED = 15  # times for each strategy
BLOCKS = 4  # of inference, with and without scoring in turn
TARGET = 0.2  # s
QUIET = 25.0  # s without background work, after which none is left


def write_studies(folder: Path, count: int) -> None:
    """Pictures of one bright disc each, labels of some, and a larger picture to segment."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE]
    final = folder / "labels" / "final"
    final.mkdir(parents=True)
    for n in range(count):
        cx, cy, r = rng.uniform(20, 44), rng.uniform(20, 44), rng.uniform(6, 14)
        disc = (x - cx) ** 2 + (y - cy) ** 2 < r**2
        grey = 60 + 120 * disc + rng.normal(0, 10, disc.shape)
        Image.fromarray(grey.clip(0, 255).astype(np.uint8)).save(folder / f"i{n:05d}.png")
        if n % LABELLED == 0:
            Image.fromarray(disc.astype(np.uint8)).save(final / f"i{n:05d}.png")
    Image.fromarray(rng.integers(0, 255, SHAPE[:2], np.uint8)).save(folder / "scan.png")


def fill(folder: Path, version: str) -> None:
    """Give each image scores and an embedding."""
    rng = np.random.default_rng(1)
    centres = rng.normal(0, 1, (12, EMBEDDING))
    with Database(folder / ".segmed").write() as (sql, _, _):
        table = ScoreRepository(sql)
        generation = table.next_generation(structure=True)
        for image, fingerprint in ImageRepository(sql).fingerprints():
            embedding = (centres[rng.integers(12)] + rng.normal(0, 0.5, EMBEDDING)).astype(np.float32)
            scores = {name: rng.random() for name in ("jitter", "entropy", "predicted_iou", "bald")}
            stored = StoredScores(image, scores, embedding)
            table.save(version, fingerprint, stored, ScoringCost(1, 1, 0.1), generation)


def forget(folder: Path, count: int) -> None:
    """Take the scores of some images away, so that there is work."""
    with Database(folder / ".segmed").write() as (sql, _, _):
        table = ScoreRepository(sql)
        table.remove(image for image, _ in ImageRepository(sql).fingerprints()[:count])
        table.next_generation(structure=True)


class Bench:
    """A server with its studies."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.server = folder, Server(folder, retrain_after="0")
        self.session = requests.Session()

    def ask(self, method: str, path: str, **body: str) -> dict[str, Any]:
        answer = self.session.request(method, f"{self.server.url}{path}", json=body or None, timeout=600)
        assert answer.ok, answer.text
        return dict(answer.json())

    def wait(self, until: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        while not until(state := self.ask("GET", "/api/active/state")):
            time.sleep(0.5)
        return state

    def settle(self) -> None:
        """Wait until all background work is done."""
        spent = -1.0
        while spent != (spent := self.ask("GET", "/scoring/")["seconds"]):
            time.sleep(QUIET)

    def next(self, strategy: str, user: str) -> float:
        """Seconds that Next Sample took."""
        began = time.perf_counter()
        told = self.ask("POST", f"/activelearning/{strategy}", client_id=user)
        took = time.perf_counter() - began
        assert not told["note"] or strategy == "tta", told["note"]
        return took

    def cpu(self) -> float:
        """Seconds of all processes of the server so far."""
        process = psutil.Process(self.server.process.pid)
        return sum(sum(p.cpu_times()[:2]) for p in (process, *process.children(recursive=True)))

    def prompts(self, seconds: float, pause: float) -> list[float]:
        """Seconds of each prompt of a user who waits so long in between."""
        times: list[float] = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            began = time.perf_counter()
            self.server.infer("segmed", 0, 0, image="scan", nudge=len(times) % 7)
            times.append(time.perf_counter() - began)
            time.sleep(pause)
        return times


def measure_next(bench: Bench) -> list[tuple[str, str, str]]:
    rows, worst = [], 0.0
    for strategy in STRATEGIES:
        times = [bench.next(strategy, f"user {n}") for n in range(ASKED)]
        worst = max(worst, *times)
        middle = statistics.median(times)
        rows.append(
            (f"Next Sample, {strategy}", f"{middle * 1e3:.0f} ms", f"slowest {max(times) * 1e3:.0f} ms")
        )
    rows.append(("slowest of all", f"{worst * 1e3:.0f} ms", f"{worst / TARGET:.2f} × the target of 200 ms"))
    shutil.copy(bench.folder / "i00001.png", bench.folder / "new.png")
    count = bench.ask("GET", "/api/active/state")["images"]
    bench.wait(lambda state: state["images"] != count)
    rows.append(("first one after an image was added", f"{bench.next('hybrid', 'late') * 1e3:.0f} ms", ""))
    return rows


def measure_idle(bench: Bench, seconds: float) -> tuple[str, str, str]:
    bench.settle()
    before = bench.cpu()
    time.sleep(seconds)
    used = bench.cpu() - before
    return f"CPU of the idle server in {seconds:.0f} s", f"{used:.2f} s", f"{used / seconds:.2%} of a core"


def measure_scoring(bench: Bench, seconds: float) -> list[tuple[str, str, str]]:
    rows = []
    for what, pause in (("without a pause", 0.0), ("with 2 s to think", 2.0)):
        forget(bench.folder, 1000)
        found: dict[bool, list[float]] = {True: [], False: []}
        spent, scored = 0.0, 0
        bench.prompts(2, 0)
        for block in range(BLOCKS):
            scoring = block % 2 == 1
            before = bench.ask("POST" if scoring else "DELETE", "/scoring/images" if scoring else "/scoring/")
            found[scoring] += bench.prompts(seconds, pause)
            after = bench.ask("GET", "/scoring/")
            spent += after["seconds"] - before["seconds"]
            scored += after["scored"] - before["scored"]
        off, on = (len(found[scoring]) / (BLOCKS / 2 * seconds) for scoring in (False, True))
        slow, slower = (statistics.fmean(found[scoring]) * 1e3 for scoring in (False, True))
        rows += [
            (f"prompts/s {what}, scoring off → on", f"{off:.2f} → {on:.2f}", f"ratio {on / off:.3f}"),
            (f"mean time of a prompt {what}", f"{slow:.0f} → {slower:.0f} ms", f"ratio {slower / slow:.3f}"),
            (f"images scored {what}", str(scored), f"{spent / (BLOCKS / 2 * seconds):.1%} of the time"),
        ]
    bench.ask("DELETE", "/scoring/")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=60, help="of idling, and of each block of inference")
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, {os.cpu_count()} CPUs, load of the machine {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        studies = Path(folder) / "studies"
        write_studies(studies, arguments.images)
        bench = Bench(studies)
        try:
            version = bench.wait(lambda s: s["scoring"]["scored"])["scoring"]["version"]
        finally:
            bench.server.close()
        fill(studies, version)
        bench = Bench(studies)
        try:
            bench.settle()
            first = bench.next("hybrid", "first")
            rows = [(f"first Next Sample of all, {arguments.images} images", f"{first * 1e3:.0f} ms", "")]
            rows += measure_next(bench)
            rows.append(measure_idle(bench, arguments.seconds))
            rows += measure_scoring(bench, arguments.seconds)
        finally:
            bench.server.close()
    print("\n| what | measured | |\n|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
