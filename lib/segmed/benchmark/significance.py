"""Gains of rows over the rows that they build on, with intervals over patients.

Slices of a patient are alike, so that patients are resampled and not slices: a paired bootstrap (Efron and
Tibshirani, An Introduction to the Bootstrap, 1993).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from types import MappingProxyType
from typing import Any

import numpy as np

from segmed.benchmark.measure import BACKGROUND
from segmed.benchmark.packing import unpacked
from segmed.evaluation.metrics import Overlap
from segmed.registry.bootstrap import bootstrap

_FEWEST, _RESAMPLES, _CONFIDENCE = 5, 2000, 0.95


@dataclass(frozen=True)
class Gain:
    """The difference of a row to the row that it builds on.

    Attributes:
        entry: Name of the row.
        base: Name of the other row.
        mean: Difference of the mean Dice: over patients with the object, then over labels.
        interval: Its 95 % interval, or None with fewer than five patients.
        patients: Number of patients.
    """

    entry: str
    base: str
    mean: float
    interval: tuple[float, float] | None
    patients: int

    def text(self) -> str:
        """Format the gain for the reader."""
        found = f"{self.entry} against {self.base}: {self.mean:+.3f}"
        if self.interval is None:
            return f"{found}, too few patients for an interval"
        low, high = self.interval
        word = "" if low > 0 or high < 0 else ", which includes 0"
        return f"{found}, 95 % interval {low:+.3f} to {high:+.3f}{word}"


def gains(
    results: Mapping[str, Sequence[Mapping[str, Any]]], parents: Mapping[str, str] = MappingProxyType({})
) -> list[Gain]:
    """Compute the gains of all rows that share patients with the row that they build on.

    Args:
        results: Results of `run_job` by row, one per seed, in the order of the table; only those without
            errors.
        parents: Names of the rows that rows build on; the first row for those without one, or whose parent
            was not measured.
    """
    tables = {name: _by_patient(mine) for name, mine in results.items() if mine and "sets" in mine[0]}
    if not tables:
        return []
    first = next(iter(tables))
    found = []
    for name in tables:
        base = parents.get(name, "") if parents.get(name) in tables else first
        if name == base:
            continue
        both = sorted(set(tables[base]) & set(tables[name]))
        patients = list(dict.fromkeys(patient for patient, _ in both))
        labels = sorted({label for _, label in both})
        if not both:
            continue
        change = np.full((len(patients), len(labels)), np.nan)
        for patient, label in both:
            place = patients.index(patient), labels.index(label)
            change[place] = tables[name][patient, label] - tables[base][patient, label]
        mean, interval = bootstrap(change, _FEWEST, _RESAMPLES, _CONFIDENCE, 0)
        found.append(Gain(name, base, mean, interval, len(patients)))
    return found


def _by_patient(results: Sequence[Mapping[str, Any]]) -> dict[tuple[str, int], float]:
    """Dice of each patient and label in the truth, over all pixels of the patient; the mean over seeds."""
    values: dict[tuple[str, int], list[float]] = {}
    for result in results:
        overlaps: dict[tuple[str, int], list[Overlap]] = {}
        for score in unpacked(result["sets"][""]["whole"]):
            if score.label != BACKGROUND:
                overlaps.setdefault((score.patient, score.label), []).append(score.overlap)
        for key, parts in overlaps.items():
            whole = reduce(add, parts)
            if whole.tp + whole.fn:
                values.setdefault(key, []).append(whole.dice())
    return {key: float(np.mean(dice)) for key, dice in values.items()}
