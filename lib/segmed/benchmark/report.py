"""What a benchmark found: as JSON, as Markdown, and as one HTML page with pictures inside."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from PIL import Image

import segmed
from segmed.benchmark.numbers import BOX_METRICS, METRICS, Comparison, Number, Row, compared, rows_of
from segmed.benchmark.settings import Job, write_json
from segmed.benchmark.tables import PROTOCOLS, Entry, Table
from segmed.evaluation.page import POLICY, page_environment

AGGREGATES = (
    "Dice, IoU, precision, recall and accuracy are means over the images on which the object is, then over classes; "
    "a missed object counts 0, and HD95 is the mean over the others. All images: where neither the truth nor the mask "
    "has a pixel counts 1. Pooled: the pixels of all images, classes and seeds together. Two classes: the mean of the "
    "IoU of object and background. ± is the standard deviation over seeds."
)
CLAIM = (
    "Ours begin from the weights that each row names. Random weights and segmed-tiny are no SAM that was trained on "
    "photographs: such rows say nothing about the pretrained numbers of the papers."
)
WEIGHTS = "began from"


@dataclass(frozen=True)
class EntryResult:
    """What came of a row.

    Attributes:
        entry: of the table.
        rows: one per test set, none if nothing came of it.
        reason: why nothing did, "" if something did.
        facts: of the first seed: weights, training, patients and the like.
        curve: Dice by how far the sides of boxes are moved.
        cases: file with the best, the median and the worst slice.
        dice: of these.
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
    """What came of a table.

    Attributes:
        table: what was asked.
        skipped: why it was not made, "" if it was.
        entries: its rows.
        comparisons: published values beside ours.
        split: how slices were dealt out, for people.
        warnings: what else a reader must know.
    """

    table: Table
    skipped: str = ""
    entries: tuple[EntryResult, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    split: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def rows(self) -> list[tuple[EntryResult, Row]]:
        return [(entry, row) for entry in self.entries for row in entry.rows]

    @property
    def columns(self) -> Mapping[str, str]:
        """Metrics that a row has, with their headings."""
        unit = next((str(e.facts["unit"]) for e in self.entries if "unit" in e.facts), "px")
        there = {key for _, row in self.rows for key in row.values}
        titles = {**METRICS, **BOX_METRICS, "ms": "ms per slice"}
        return {k: f"{t}, {unit}" if k == "hd95" else t for k, t in titles.items() if k in there}

    @property
    def classes(self) -> list[str]:
        """Metrics of classes, the mean with the background last."""
        if not self.table.by_class:
            return []
        found = dict.fromkeys(key for _, row in self.rows for key in row.values if key.startswith("dice:"))
        return [*found, "dice_with_background"] if found else []


def collect(table: Table, jobs: Sequence[Job], results: Sequence[Mapping[str, Any]]) -> TableResult:
    """Put the seeds of each row together.

    Args:
        table: that the jobs are of.
        jobs: of all rows and seeds.
        results: of `run_job`, in the order of the jobs.
    """
    groups: dict[str, list[tuple[Job, Mapping[str, Any]]]] = {}
    for job, result in zip(jobs, results, strict=True):
        groups.setdefault(job.entry.name, []).append((job, result))
    entries = tuple(_entry(mine) for mine in groups.values())
    comparisons = compared(table.published, [row for entry in entries for row in entry.rows])
    facts = next((entry.facts for entry in entries if entry.facts), {})
    return TableResult(table, "", entries, tuple(comparisons), _split(table, jobs, facts), _warnings(facts))


def write_reports(found: Sequence[TableResult], out: Path, command: str) -> list[Path]:
    """Write `results.json`, `results.md` and `results.html`.

    Args:
        found: tables, made and skipped.
        out: folder.
        command: that was given.

    Returns:
        The files.
    """
    files = [out / f"results.{kind}" for kind in ("json", "md", "html")]
    write_json(files[0], _plain({"command": command, "program": segmed.__version__, "tables": [*map(_facts, found)]}))
    files[1].write_text(_markdown(found, command), encoding="utf-8")
    files[2].write_text(_html(found, command), encoding="utf-8")
    return files


def _entry(mine: Sequence[tuple[Job, Mapping[str, Any]]]) -> EntryResult:
    entry = mine[0][0].entry
    good = [(job, result) for job, result in mine if "error" not in result]
    errors = [f"seed {job.seed}: {result['error']}" for job, result in mine if "error" in result]
    if not good:
        return EntryResult(entry, reason=errors[0].partition(": ")[2])
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


def _split(table: Table, jobs: Sequence[Job], facts: Mapping[str, Any]) -> str:
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
    asked = f"{budget.steps} steps" if budget.steps else f"{budget.epochs or 'as many as each recipe has'} passes"
    return (
        f"Split {facts['split']}, the same for all rows and seeds: {numbers}. At most {asked} of {budget.batch} slices."
    )


def _warnings(facts: Mapping[str, Any]) -> tuple[str, ...]:
    found = []
    if facts and facts["settings"]["slice_split"]:
        found.append(
            "Neighbours of the tested slices were learnt from: these numbers are too good for patients whom a method "
            "has not seen."
        )
    if facts and facts["skipped"]:
        found.append(f"{len(facts['skipped'])} images could not be used. The first: {facts['skipped'][0]}")
    return tuple(found)


def _where(where: str) -> str:
    return where.replace("@", "at ").replace(">", "on ") + (" px" if where.startswith("@") else "") if where else "test"


def _cell(row: Row, key: str) -> str:
    return row.values[key].text(1 if key in ("hd95", "ms") else 3) if key in row.values else "–"


def _versions(comparison: Comparison) -> str:
    """0.6757 (Table III, Table IV); 0.8095 (Table II)."""
    digits = 2 if comparison.metric == "hausdorff" else 1 if comparison.metric in ("parameters", "trainable") else 4
    sources: dict[str, list[str]] = {}
    for value in comparison.published:
        text = f"{value.value:.{digits}f}" + (f" ± {value.spread:.4f}" if value.spread is not None else "")
        sources.setdefault(text, []).append(value.source)
    return "; ".join(f"{text} ({', '.join(named)})" for text, named in sources.items())


def _ours(comparison: Comparison) -> str:
    digits = 1 if comparison.metric in ("hausdorff", "parameters", "trainable") else 4
    return comparison.ours.text(digits) if comparison.ours else "–"


def _facts(found: TableResult) -> dict[str, Any]:
    table = found.table
    return {
        "table": table.name,
        "title": table.title,
        "source": table.source,
        "dataset": table.dataset,
        "skipped": found.skipped,
        "split": found.split,
        "notes": [*table.notes, *found.warnings, CLAIM, AGGREGATES],
        "rows": [
            {
                "entry": entry.entry.name,
                "method": entry.entry.method,
                "protocol": PROTOCOLS[entry.entry.protocol],
                **entry.facts,
                "reason": entry.reason,
                "curve": {str(key): asdict(value) for key, value in entry.curve.items()},
                "results": [{**asdict(row), "identity": row.identity} for row in entry.rows],
            }
            for entry in found.entries
        ],
        "published": [
            {
                "versions": [asdict(version) for version in c.published],
                "ours": asdict(c.ours) if c.ours else None,
                "odd": c.odd,
            }
            for c in found.comparisons
        ],
    }


def _plain(content: Any) -> Any:
    """What JSON has no number for becomes null."""
    if isinstance(content, Mapping):
        return {key: _plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def _markdown(found: Sequence[TableResult], command: str) -> str:
    lines = ["# Benchmark", "", f"`{command}` · SegMed {segmed.__version__} · {time.strftime('%Y-%m-%d')}", ""]
    lines += [CLAIM, "", AGGREGATES, ""]
    for one in found:
        table = one.table
        lines += [f"## {table.name}: {table.title}", ""]
        if one.skipped:
            lines += [f"Skipped: {one.skipped}", ""]
        for sentence in filter(None, (one.split, *one.warnings, *table.notes)):
            lines += [sentence, ""]
        if one.rows:
            heads = ["row", "on", WEIGHTS, "seeds", *one.columns.values(), "IoU = Dice / (2 − Dice)"]
            body = [
                [
                    *(e.entry.name, _where(r.where), e.facts["weights"], str(r.seeds)),
                    *(_cell(r, key) for key in one.columns),
                    r.identity,
                ]
                for e, r in one.rows
            ]
            lines += [*_table(heads, body), ""]
        for entry in one.entries:
            if entry.reason:
                lines += [f"- {entry.entry.name}: {entry.reason}"]
            elif entry.curve:
                curve = ", ".join(f"{key:.0%} {value.text()}" for key, value in entry.curve.items())
                lines += [f"- {entry.entry.name}: Dice by the move of the sides of boxes: {curve}"]
        lines += [""]
        if one.classes:
            heads = ["Dice", *(e.entry.name for e, r in one.rows if not r.where)]
            body = [
                [key.removeprefix("dice:").replace("_", " "), *(_cell(r, key) for _, r in one.rows if not r.where)]
                for key in one.classes
            ]
            lines += [*_table(heads, body), ""]
        if one.comparisons:
            heads = ["row", "on", "metric", f"published: {table.source}", "ours", ""]
            body = [[c.entry, _where(c.where), c.title, _versions(c), _ours(c), c.odd] for c in one.comparisons]
            lines += [*_table(heads, body), ""]
    return "\n".join(lines)


def _table(heads: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    rows = [[cell.replace("|", "\\|") for cell in row] for row in body]
    return [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads), *(f"| {' | '.join(row)} |" for row in rows)]


def _html(found: Sequence[TableResult], command: str) -> str:
    environment = page_environment(Path(__file__).parent)
    environment.filters |= {"where": _where, "cell": _cell, "versions": _versions, "ours": _ours, "picture": _picture}
    return environment.get_template("report.html").render(
        found=found,
        command=command,
        policy=POLICY,
        program=segmed.__version__,
        made=time.strftime("%Y-%m-%d %H:%M %Z"),
        claim=CLAIM,
        aggregates=AGGREGATES,
        protocols=PROTOCOLS,
        curves={one.table.name: _plot(one) for one in found if any(entry.curve for entry in one.entries)},
    )


def _picture(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def _plot(found: TableResult) -> bytes:
    """Dice by how far the sides of boxes are moved, a line per row."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    for entry in found.entries:
        if entry.curve:
            axes.plot(
                [100 * x for x in entry.curve], [n.mean for n in entry.curve.values()], "o-", label=entry.entry.name
            )
    axes.set_xlabel("largest move of each side of a box, % of the side")
    axes.set_ylabel("Dice")
    axes.set_ylim(0, 1)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    out = io.BytesIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()
