"""What came out: labels that a strategy needs, its difference to random with a paired test, a table and
curves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from scipy import stats

matplotlib.use("Agg")
import matplotlib.pyplot as plt

Row = dict[str, Any]
FULL, RANDOM = "full", "random"
_SHARE = 0.95  # of the Dice with all labels
_AXES = {"labels": "labels", "clicks": "clicks", "minutes": "simulated minutes"}


def matrix(rows: Sequence[Row], strategy: str, column: str) -> np.ndarray:
    """(seeds, rounds) of a strategy; seeds that are not finished are left out.

    Raises:
        ValueError: there is no such run.
    """
    return np.array([[r[column] for r in run] for run in _runs(rows, strategy).values()], float)


def needed(labels: Iterable[float], dice: Iterable[float], wanted: float) -> float:
    """Labels at which a curve first reaches a Dice, on straight lines between its points; infinite if it does
    not."""
    before: tuple[float, float] | None = None
    for x, y in zip(labels, dice, strict=True):
        if y >= wanted:
            if before is None:
                return float(x)
            x0, y0 = before
            return float(x0 + (x - x0) * (wanted - y0) / (y - y0))
        before = x, y
    return math.inf


def interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over seeds (axis 0) and half of its 95 % confidence interval by Student's t; NaN for one seed."""
    mean, count = values.mean(0), len(values)
    if count < 2:
        return mean, np.full_like(mean, np.nan)
    return mean, stats.t.ppf(0.975, count - 1) * values.std(0, ddof=1) / math.sqrt(count)


def strategies_of(rows: Sequence[Row]) -> list[str]:
    """All but the full one, random first."""
    names = dict.fromkeys(r["strategy"] for r in rows if r["strategy"] != FULL)
    return sorted(names, key=lambda name: name != RANDOM)


def against_random(rows: Sequence[Row], strategy: str) -> tuple[float, float, float]:
    """Difference of the mean Dice over rounds to random's, seed by seed: mean, half of its 95 % interval, p
    (t-test).

    Only rounds and seeds that both have count; NaN where there are fewer than two seeds.
    """
    if RANDOM not in strategies_of(rows):
        return (math.nan,) * 3
    mine, theirs = _runs(rows, strategy), _runs(rows, RANDOM)
    both = sorted(mine.keys() & theirs.keys())
    gain = np.array(
        [np.mean([a["dice"] - b["dice"] for a, b in zip(mine[s], theirs[s], strict=False)]) for s in both]
    )
    if len(gain) < 2:
        return float(gain.mean()) if len(gain) else math.nan, math.nan, math.nan
    mean, half = interval(gain[:, None])
    p = float(stats.ttest_1samp(gain, 0).pvalue) if gain.std() > 0 else float(gain.mean() == 0)
    return float(mean[0]), float(half[0]), p


def table(rows: Sequence[Row]) -> str:
    """Markdown: a strategy per line."""
    full = matrix(rows, FULL, "dice")[:, -1].mean() if any(r["strategy"] == FULL for r in rows) else math.nan
    names = strategies_of(rows)
    counts = max((matrix(rows, name, "labels")[0] for name in names), key=len)
    rounds = min(matrix(rows, name, "labels").shape[1] for name in names)
    last = counts[rounds - 1]
    mean = "mean" if rounds == len(counts) else f"mean to {last:.0f}"
    heads = ["strategy", "seeds", *(f"{int(n)}" for n in counts), mean, "labels for 95 %", "of random's"]
    heads += ["mean − random", "p", f"clicks, {last:.0f} labels", "minutes"]
    lines = [f"| {' | '.join(heads)} |", "|---|" + "---:|" * (len(heads) - 1)]
    wanted = _SHARE * full
    chance = matrix(rows, RANDOM, "dice").mean(0) if RANDOM in names else np.array([math.nan])
    theirs = needed(counts[: len(chance)], chance, wanted) if RANDOM in names else math.nan
    for name in names:
        dice, labels = matrix(rows, name, "dice"), matrix(rows, name, "labels")[0]
        mine = needed(labels, dice.mean(0), wanted)
        gain, half, p = against_random(rows, name) if name != RANDOM else (math.nan,) * 3
        cells = [
            name,
            str(len(dice)),
            *(_number(v, ".3f") for v in dice.mean(0)),
            *[""] * (len(counts) - len(labels)),
        ]
        cells += [_number(dice[:, :rounds].mean(), ".3f")]
        cells += [_count(mine, labels[-1]), _share(mine, theirs, counts[len(chance) - 1])]
        cells += ["" if math.isnan(gain) else f"{gain:+.3f} ± {half:.3f}", _number(p, ".3f")]
        cells += [_number(matrix(rows, name, c)[:, rounds - 1].mean(), ".0f") for c in ("clicks", "minutes")]
        lines.append(f"| {' | '.join(cells)} |")
    everything = max((r["labels"] for r in rows if r["strategy"] == FULL), default=0)
    lines.append(f"\nWith all {everything} labels: Dice {full:.3f}, of which 95 % are {wanted:.3f}.")
    for name in names if RANDOM in names else ():
        mine = needed(matrix(rows, name, "labels")[0], matrix(rows, name, "dice").mean(0), chance[-1])
        if name != RANDOM and math.isfinite(mine):
            most = counts[len(chance) - 1]
            both = f"with {most:.0f} labels {name} has with {mine:.0f}: {mine / most:.2f}."
            lines.append(f"The {chance[-1]:.3f} that random has {both}")
    return "\n".join(lines)


def plot(rows: Sequence[Row], path: Path, title: str) -> None:
    """Dice against labels, clicks and simulated minutes, with 95 % intervals of the mean over seeds."""
    figure, axes = plt.subplots(1, len(_AXES), figsize=(11, 3.4), sharey=True, layout="constrained")
    for axis, (column, words) in zip(axes, _AXES.items(), strict=True):
        for name in strategies_of(rows):
            x, (mean, half) = matrix(rows, name, column).mean(0), interval(matrix(rows, name, "dice"))
            (line,) = axis.plot(x, mean, marker=".", label=name, lw=2 if name == RANDOM else 1.3)
            axis.fill_between(x, mean - half, mean + half, color=line.get_color(), alpha=0.12, lw=0)
        if any(r["strategy"] == FULL for r in rows):
            full = matrix(rows, FULL, "dice")[:, -1].mean()
            axis.axhline(full, color="grey", ls="-", lw=0.8)
            axis.axhline(_SHARE * full, color="grey", ls="--", lw=0.8)
        axis.set_xlabel(words)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("Dice on the test pictures")
    axes[0].legend(fontsize=8)
    figure.suptitle(title, fontsize=10)
    save(figure, path)


def plot_lines(
    series: dict[str, tuple[np.ndarray, np.ndarray]], path: Path, title: str, x: str, y: str
) -> None:
    """Curves of (x, (seeds, x)) with intervals."""
    figure, axis = plt.subplots(figsize=(5.5, 3.4), layout="constrained")
    for name, (places, values) in series.items():
        mean, half = interval(values)
        (line,) = axis.plot(places, mean, marker=".", label=name)
        axis.fill_between(places, mean - half, mean + half, color=line.get_color(), alpha=0.12, lw=0)
    axis.set(xlabel=x, ylabel=y, title=title)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    save(figure, path)


def save(figure: Any, path: Path) -> None:
    """A small PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def picked(rows: Sequence[Row]) -> Iterator[str]:
    """Markdown: of which kinds the labelled pictures of each strategy were, in per cent."""
    names = [FULL, *strategies_of(rows)] if any(r["strategy"] == FULL for r in rows) else strategies_of(rows)
    kinds = sorted({kind for r in rows for kind in r["picked"]})
    yield f"| strategy | {' | '.join(kinds)} |"
    yield "|---|" + "---:|" * len(kinds)
    for name in names:
        sums = {kind: sum(r["picked"].get(kind, 0) for r in rows if r["strategy"] == name) for kind in kinds}
        total = max(sum(sums.values()), 1)
        words = "all pictures" if name == FULL else name
        yield f"| {words} | {' | '.join(f'{100 * sums[kind] / total:.0f}' for kind in kinds)} |"


def _runs(rows: Sequence[Row], strategy: str) -> dict[int, list[Row]]:
    """The rounds of each seed; seeds that are not finished are left out."""
    mine = [r for r in rows if r["strategy"] == strategy]
    longest = max((r["round"] for r in mine), default=-1) + 1
    runs = {
        s: sorted((r for r in mine if r["seed"] == s), key=_round) for s in sorted({r["seed"] for r in mine})
    }
    ended = {seed: run for seed, run in runs.items() if len(run) == longest}
    if not ended:
        raise ValueError(f"There are no finished results of {strategy}. Run it first.")
    return ended


def _round(row: Row) -> int:
    return int(row["round"])


def _number(value: float, form: str) -> str:
    return "" if math.isnan(value) else f"{value:{form}}"


def _count(value: float, most: float) -> str:
    return f"> {most:.0f}" if math.isinf(value) else _number(value, ".0f")


def _share(mine: float, theirs: float, most: float) -> str:
    if math.isinf(theirs) and math.isfinite(mine):
        return f"< {mine / most:.2f}"
    return "" if not math.isfinite(mine) or not math.isfinite(theirs) else f"{mine / theirs:.2f}"
