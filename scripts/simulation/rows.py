"""The rows of a simulation in a file, and what they show of forgetting and of memory."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simulation import curves
from simulation.archive import STAGES


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines; none if there is no file."""
    return (
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
    )


def write(path: Path, row: dict[str, Any]) -> None:
    """Append a row to a file of JSON lines, and print it without its images."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print({k: v for k, v in row.items() if k != "images"}, file=sys.stderr, flush=True)


def continual_report(rows: Sequence[dict[str, Any]], arms: Iterable[str], plot: Path | None) -> str:
    """Dice on the first kind after the first and the last round, for each arm with rows."""
    last_round = max(r["round"] for r in rows)
    lines = [
        f"| arm | seeds | after round 1 | after round {last_round + 1} | loss | worst round | other kinds |"
    ]
    lines += ["|---|---:|---:|---:|---:|---:|---:|"]
    series = {}
    for arm in [arm for arm in arms if arm in curves.strategies_of(rows)]:
        dice = curves.matrix(rows, arm, "dice")
        loss, half = curves.interval((dice[:, 0] - dice[:, -1])[:, None])
        last = [r["kinds"] for r in rows if r["strategy"] == arm and r["round"] == last_round]
        others = (
            np.mean([[v for k, v in kinds.items() if k != STAGES[0].name] for kinds in last])
            if last
            else np.nan
        )
        cells = [arm, str(len(dice)), f"{dice[:, 0].mean():.3f}", f"{dice[:, -1].mean():.3f}"]
        cells += [
            f"{loss[0]:+.3f} ± {half[0]:.3f}",
            f"{(dice[:, :1] - dice).mean(0).max():+.3f}",
            f"{others:.3f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
        series[arm] = np.arange(1, dice.shape[1] + 1), dice
    if plot:
        curves.plot_lines(series, plot, "What is forgotten", "round", "Dice on the first round's kind")
    return "\n".join(lines)


def stress_report(rows: Sequence[dict[str, Any]], plot: Path | None) -> str:
    """How the memory of the server goes."""
    rss = np.array([r["rss_mib"] for r in rows])
    late = len(rss) // 5
    slope = np.polyfit(np.arange(len(rss))[late:], rss[late:], 1)[0] if len(rss) - late > 2 else np.nan
    states = dict(Counter(r["state"] for r in rows))
    if plot:
        curves.plot_lines(
            {"RSS": (np.arange(1, len(rss) + 1), rss[None])}, plot, "Server", "retraining", "MiB"
        )
    first, last = rows[0], rows[-1]
    changes = ", ".join(
        f"{what} {first[what]:.0f} → {last[what]:.0f}" for what in ("files", "threads", "processes")
    )
    return (
        f"{last['labelled']} labels, {last['jobs']} retrainings ({states}). RSS {rss[0]:.0f} MiB after the "
        f"first, {rss[late]:.0f} after {late + 1}, {rss[-1]:.0f} at the end, {slope:+.2f} MiB a retraining "
        f"after the first fifth; {changes}."
    )
