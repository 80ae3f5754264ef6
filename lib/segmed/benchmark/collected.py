"""Results of a benchmark's tables, collected from jobs over rows and seeds for the reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segmed.benchmark.numbers import BOX_METRICS, METRICS, Comparison, Number, Row, compared, rows_of
from segmed.benchmark.settings import BenchmarkJob
from segmed.benchmark.significance import Gain, gains
from segmed.benchmark.tables import Entry, Table


@dataclass(frozen=True)
class EntryResult:
    """The result of a row.

    Attributes:
        entry: The row of the table.
        rows: One row of numbers per test set; none if all seeds failed.
        reason: Errors of the seeds that failed, or "".
        facts: Facts of the first seed, such as weights, training and patients.
        curve: Dice by the largest move of the boxes' sides, as a share of the side.
        cases: File with the best, the median and the worst slice.
        dice: Dice of these slices.
    """

    entry: Entry
    rows: tuple[Row, ...] = ()
    reason: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    curve: Mapping[float, Number] = field(default_factory=dict)
    cases: Path | None = None
    dice: tuple[float, ...] = ()


@dataclass(frozen=True)
class TableResult:
    """The results of a table.

    Attributes:
        table: The table.
        skipped: Reason why it was skipped, or "".
        entries: Results of its rows.
        comparisons: Published values beside ours.
        split: Description of the split of slices for the reader.
        warnings: Further warnings for the reader.
        gains: Gains of the rows over those that they build on.
    """

    table: Table
    skipped: str = ""
    entries: tuple[EntryResult, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    split: str = ""
    warnings: tuple[str, ...] = ()
    gains: tuple[Gain, ...] = ()

    @property
    def rows(self) -> list[tuple[EntryResult, Row]]:
        """All rows of numbers with the results that they belong to."""
        return [(entry, row) for entry in self.entries for row in entry.rows]

    @property
    def columns(self) -> Mapping[str, str]:
        """Metrics that at least one row has, with their headings."""
        unit = next((str(e.facts["unit"]) for e in self.entries if "unit" in e.facts), "px")
        present = {key for _, row in self.rows for key in row.values}
        titles = {**METRICS, **BOX_METRICS, "ms": "ms per slice"}
        return {k: f"{t}, {unit}" if k in ("hd95", "hd") else t for k, t in titles.items() if k in present}

    @property
    def classes(self) -> list[str]:
        """Names of the metrics of classes, followed by the mean with the background."""
        if not self.table.by_class:
            return []
        found = dict.fromkeys(key for _, row in self.rows for key in row.values if key.startswith("dice:"))
        return [*found, "dice_with_background"] if found else []


def collect(table: Table, jobs: Sequence[BenchmarkJob], results: Sequence[Mapping[str, Any]]) -> TableResult:
    """Collect the seeds of each row.

    Args:
        table: The table of the jobs.
        jobs: Jobs of all rows and seeds.
        results: Results of `run_job`, in the order of the jobs.
    """
    groups: dict[str, list[tuple[BenchmarkJob, Mapping[str, Any]]]] = {}
    for job, result in zip(jobs, results, strict=True):
        groups.setdefault(job.entry.name, []).append((job, result))
    entries = tuple(_entry(mine) for mine in groups.values())
    comparisons = compared(table.published, [row for entry in entries for row in entry.rows])
    facts = next((entry.facts for entry in entries if entry.facts), {})
    good = {name: [r for _, r in mine if "error" not in r] for name, mine in groups.items()}
    return TableResult(
        table,
        "",
        entries,
        tuple(comparisons),
        _split(table, jobs, facts),
        _warnings(facts),
        tuple(
            gains(
                {name: mine for name, mine in good.items() if mine},
                {name: mine[0][0].entry.parent for name, mine in groups.items()},
            )
        ),
    )


def _entry(mine: Sequence[tuple[BenchmarkJob, Mapping[str, Any]]]) -> EntryResult:
    entry = mine[0][0].entry
    good = [(job, result) for job, result in mine if "error" not in result]
    errors = [f"seed {job.seed}: {result['error']}" for job, result in mine if "error" in result]
    if not good:
        return EntryResult(entry, reason=errors[0].partition(": ")[2])
    errors += [f"seed {job.seed}: {r['training']}" for job, r in good if r.get("ended") == "background only"]
    job, first = good[0]
    try:
        rows = tuple(rows_of(entry.name, [result for _, result in good]))
    except ValueError as error:
        return EntryResult(entry, reason=str(error))
    curves = [result.get("curve", {}) for _, result in good]
    curve = {float(key): Number.of([c[key] for c in curves]) for key in curves[0]}
    picture = job.folder / "cases.png"
    return EntryResult(
        entry,
        rows,
        " ".join(errors),
        {key: value for key, value in first.items() if key not in ("sets", "curve")},
        curve,
        picture if picture.is_file() else None,
        tuple(first.get("cases", ())),
    )


def _split(table: Table, jobs: Sequence[BenchmarkJob], facts: Mapping[str, Any]) -> str:
    if not facts:
        return ""
    by_slice = facts["settings"]["slice_split"]
    numbers = ", ".join(
        f"{slices} slices{'' if by_slice else f' of {patients} patients'} {what}"
        for what, patients, slices in zip(
            ("to learn from", "to choose by", "to test on"), facts["patients"], facts["slices"], strict=True
        )
    )
    budget = jobs[0].budget
    batch = f"{budget.batch} slices" if budget.batch else "as many slices as each recipe has"
    limit = (
        f"{budget.steps} steps" if budget.steps else f"{budget.epochs or 'as many as each recipe has'} passes"
    )
    return f"Split {facts['split']}, the same for all rows and seeds: {numbers}. At most {limit} of {batch}."


def _warnings(facts: Mapping[str, Any]) -> tuple[str, ...]:
    found = []
    if facts and facts["settings"]["slice_split"]:
        found.append(
            "Neighbours of the tested slices were used for training: these numbers are better than those for "
            "unseen patients would be."
        )
    if facts and facts["skipped"]:
        found.append(f"{len(facts['skipped'])} images could not be used. The first: {facts['skipped'][0]}")
    return tuple(found)
