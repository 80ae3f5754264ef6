#!/usr/bin/env python
"""Play an annotator through the HTTP API: which strategy saves labels, what is forgotten, and whether
anything leaks.

    python scripts/simulate_annotation.py --out runs/phantoms.jsonl     rounds × strategies × seeds
    python scripts/simulate_annotation.py --dataset msd --root HIPPOCAMPUS --out runs/hippocampus.jsonl
    python scripts/simulate_annotation.py --continual --in-process --out runs/continual.jsonl
    python scripts/simulate_annotation.py --stress --out runs/stress.jsonl       1,000 labels, 50 retrainings
    python scripts/simulate_annotation.py --report --out runs/phantoms.jsonl --plot curve.png

Each run begins with the same first pictures for all strategies of a seed. In each round the strategy proposes
a batch, the served model proposes labels, the annotator makes them the truth (clicks and minutes by
`simulation/window_annotator.py`), they are submitted, a retraining follows, and what is served then is
measured on other patients. `full` is one training on everything. With --in-process the same functions of the
library are called without a server, which is what makes a whole grid feasible: a process that trains behind a
server spends longer on its imports than on so small a training.

A line of the file is one round; what is there is not run again. In one process, the first round of a seed is
played once for all its strategies.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from segmed.active.scoring.strategies import find_strategy
from simulation import curves
from simulation.annotator import effort
from simulation.archive import CLINIC, STAGES, Archive, Kind, draw, from_dataset
from simulation.loops import FirstRound, InProcess, Loop, Setup, dice_of
from simulation.options import parser_of
from simulation.rows import continual_report, read, stress_report, write
from simulation.server_loop import ServerLoop

_STRATEGIES = ("random:12", "hybrid", "full")
_ARMS = {"replay": (100, False), "no replay": (0, False), "no replay without gate": (0, True)}
_STRESS = Kind("CT", patients=1, pictures=1, tested=1)


def rounds(
    loop: Loop,
    archive: Archive,
    strategy: str,
    seed: int,
    batch: int,
    count: int,
    played: dict[str, Any] | None = None,
) -> Iterator[dict[str, Any]]:
    """Play one annotator; one row per round.

    Args:
        loop: a server or its like, of which nothing is labelled yet.
        archive: pictures.
        strategy: name, or `full` for everything at once.
        seed: of the first pictures.
        batch: labels of a round.
        count: of rounds.
        played: row of the first round, if the loop has it behind it.
    """
    by_name = {case.name: case for case in archive.pool}
    first = [archive.pool[n].name for n in np.random.default_rng([seed, 7]).permutation(len(by_name))[:batch]]
    clicks, minutes, labels = 0, 0.0, 0
    if played:
        clicks, minutes, labels = played["clicks"], played["minutes"], played["labels"]
        yield played
    for n in range(1 if played else 0, 1 if strategy == curves.FULL else count):
        begun = time.perf_counter()
        chosen = list(by_name) if strategy == curves.FULL else first if not n else loop.next(strategy, batch)
        cases = [by_name[name] for name in chosen]
        proposals = loop.predict(cases) if n else None
        for place, case in enumerate(cases):
            took = effort(proposals[place] if proposals else None, case.truth, archive.classes)
            clicks, minutes, labels = clicks + took.clicks, minutes + took.seconds / 60, labels + 1
            loop.submit(case)
        asked = time.perf_counter()
        state = loop.retrain()
        trained = time.perf_counter()
        yield {
            "strategy": strategy,
            "seed": seed,
            "round": n,
            "labels": labels,
            "clicks": clicks,
            "minutes": round(minutes, 3),
            **{
                k: round(v, 5)
                for k, v in dice_of(loop.predict(archive.test), archive.test, archive.classes).items()
            },
            "state": state,
            "picked": dict(Counter(case.kind for case in cases)),
            "patients": len({case.patient for case in cases}),
            "images": chosen if strategy != curves.FULL else [],
            "seconds": [round(asked - begun, 1), round(trained - asked, 1)],
        }


def stages(archive: Archive, arm: str, seed: int, setup: Setup, folder: Path) -> Iterator[dict[str, Any]]:
    """Ten rounds of which the later ones bring other kinds; Dice on the first kind after each."""
    replay, forced = _ARMS[arm]
    loop = InProcess(archive, folder, replace(setup, replay=replay, forced=forced), curves.FULL, seed)
    by_kind = [[c for c in archive.pool if c.kind == kind.name] for kind in STAGES]
    batches = [by_kind[0], *(part[n : n + 8] for part in by_kind[1:] for n in range(0, 24, 8))]
    tests = {kind.name: [c for c in archive.test if c.kind == kind.name] for kind in STAGES}
    for n, cases in enumerate(batches):
        for case in cases:
            loop.submit(case)
        state = loop.retrain()
        dice = {
            name: dice_of(loop.predict(test), test, archive.classes)["dice"] for name, test in tests.items()
        }
        row = {
            "strategy": arm,
            "seed": seed,
            "round": n,
            "dice": round(dice[STAGES[0].name], 5),
            "state": state,
        }
        yield row | {"now": cases[0].kind, "kinds": {name: round(value, 5) for name, value in dice.items()}}


def stress(setup: Setup, folder: Path, labels: int, retrainings: int) -> Iterator[dict[str, Any]]:
    """Labels and retrainings through one server; what it holds after each."""
    drawn = draw([replace(_STRESS, patients=20, tested=2)], 0)
    few = drawn.pool
    pool = tuple(replace(few[n % len(few)], name=f"{few[n % len(few)].patient}_{n}") for n in range(labels))
    archive = Archive("stress", drawn.classes, pool, drawn.test)
    by_name = {case.name: case for case in pool}
    batch = labels // retrainings
    loop = ServerLoop(archive, folder, setup, batch, scores=False)
    try:
        for n in range(retrainings):
            begun = time.perf_counter()
            chosen = loop.next("hybrid", batch)
            for name in chosen:
                loop.submit(by_name[name])
            state = loop.retrain()
            loop.predict(archive.test)
            told = loop.status()
            facts = {
                "strategy": "stress",
                "seed": 0,
                "round": n,
                "state": state,
                "labelled": told["labelled"],
            }
            facts |= {"jobs": told["retraining"]["jobs"], "reserved": told["reserved"], "held": told["held"]}
            facts |= {"left": told["scoring"]["left"], "seconds": round(time.perf_counter() - begun, 1)}
            yield facts | {name: round(value, 1) for name, value in loop.memory().items()}
    finally:
        loop.close()


def run_one(
    a: argparse.Namespace,
    archive: Archive,
    strategy: str,
    seed: int,
    folder: Path,
    count: int,
    first: FirstRound,
) -> Iterator[dict[str, Any]]:
    """One strategy or arm with one seed."""
    setup = Setup(a.method, a.image_size, {**options_of(a), "seed": seed}, a.replay, a.no_gate)
    if a.continual:
        yield from stages(archive, strategy, seed, setup, folder)
        return
    full = strategy == curves.FULL
    if full and a.full_epochs:
        setup = replace(setup, options={**setup.options, "epochs": a.full_epochs})
    loop: Loop
    played = first.restore(folder, strategy) if a.in_process and not full else None
    if a.in_process:
        loop = InProcess(archive, folder, setup, strategy, seed)
    else:
        scored = not full and bool(find_strategy(strategy).needs)
        loop = ServerLoop(archive, folder, setup, len(archive.pool) if full else a.batch, scored)
    try:
        for row in rounds(loop, archive, strategy, seed, a.batch, count, played):
            if a.in_process and not full and not row["round"]:
                first.keep(folder, row)
            yield row
    finally:
        loop.close()


def options_of(a: argparse.Namespace) -> dict[str, Any]:
    """The options of --options, numbers and truth values as such."""
    pairs = [part.split("=", 1) for part in a.options.split(",") if part]
    return {name: yaml.safe_load(value) for name, value in pairs}


def archive_of(a: argparse.Namespace, seed: int) -> Archive:
    if a.continual:
        return draw(STAGES, seed, "stages")
    if a.dataset == "phantoms":
        return draw(CLINIC, seed)
    if not a.root:
        raise ValueError(f"--dataset {a.dataset} needs --root FOLDER.")
    return from_dataset(a.dataset, a.root, seed, a.patients, a.slices, a.tested)


def play(a: argparse.Namespace) -> None:
    """Run what the file does not hold yet."""
    names = (a.strategies or ",".join(_ARMS if a.continual else _STRATEGIES)).split(",")
    counts = {name.partition(":")[0]: int(name.partition(":")[2] or a.rounds) for name in names}
    for seed in (int(s) for s in a.seeds.split(",")):
        archive = archive_of(a, seed)
        for name in counts:
            if not a.continual and name != curves.FULL:
                find_strategy(name)
        with tempfile.TemporaryDirectory(prefix="simulation-", dir=a.work) as shared:
            play_seed(a, archive, seed, counts, FirstRound(Path(shared)))


def play_seed(
    a: argparse.Namespace, archive: Archive, seed: int, counts: dict[str, int], first: FirstRound
) -> None:
    """Run the strategies or arms of a seed that the file does not hold yet."""
    for name, count in counts.items():
        there = {r["round"] for r in read(a.out) if (r["strategy"], r["seed"]) == (name, seed)}
        wanted = 1 if name == curves.FULL else 10 if a.continual else count
        if len(there) >= wanted:
            continue
        with tempfile.TemporaryDirectory(prefix="simulation-", dir=a.work) as folder:
            for row in run_one(a, archive, name, seed, Path(folder), count, first):
                if row["round"] not in there:
                    write(a.out, row)


def report(a: argparse.Namespace) -> str:
    """Markdown of what the file holds, and the plot."""
    rows = read(a.out)
    if a.stress:
        return stress_report(rows, a.plot)
    if a.continual:
        return continual_report(rows, _ARMS, a.plot)
    if a.plot:
        curves.plot(rows, a.plot, f"{a.dataset}, {len(curves.matrix(rows, curves.RANDOM, 'dice'))} seeds")
    return "\n".join([curves.table(rows), "", *curves.picked(rows)])


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = parser_of(__doc__, dataset="phantoms", slices=8, rounds=5)
    parser.add_argument("--strategies", help="with commas; NAME:ROUNDS for others; arms of --continual")
    parser.add_argument("--method", default="lora")
    parser.add_argument("--image-size", type=int, default=64, help="of the model input in px")
    parser.add_argument(
        "--options",
        default="epochs=6,epoch_steps=16,patience=1000,batch=4,learning_rate=0.02",
        help="of the trainer",
    )
    parser.add_argument(
        "--full-epochs", type=int, default=12, help="of the training on everything, if others"
    )
    parser.add_argument("--replay", type=int, default=100)
    parser.add_argument("--no-gate", action="store_true", help="serve each version, with --in-process")
    parser.add_argument("--in-process", action="store_true", help="without a server")
    parser.add_argument(
        "--continual", action="store_true", help="later rounds bring other kinds; without a server"
    )
    parser.add_argument(
        "--stress", action="store_true", help="many labels and retrainings through one server"
    )
    parser.add_argument("--labels", type=int, default=1000, help="of --stress")
    parser.add_argument("--retrainings", type=int, default=50, help="of --stress")
    parser.add_argument("--work", type=Path, help="where temporary folders are made")
    return parser.parse_args(words)


def main() -> None:
    a = parse()
    torch.set_num_threads(1)  # the same weights each time
    if a.stress and not a.report:
        with tempfile.TemporaryDirectory(prefix="simulation-", dir=a.work) as folder:
            for row in stress(
                Setup(a.method, a.image_size, options_of(a), 8), Path(folder), a.labels, a.retrainings
            ):
                write(a.out, row)
    elif not a.report:
        play(a)
    print(report(a))


if __name__ == "__main__":
    main()
