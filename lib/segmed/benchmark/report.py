"""Reports of a benchmark: as JSON, as Markdown, and as one HTML page with embedded images."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from PIL import Image

import segmed
from segmed.benchmark.collected import TableResult
from segmed.benchmark.numbers import Comparison, Row
from segmed.benchmark.settings import write_json
from segmed.benchmark.table import PROTOCOLS
from segmed.reports.page import POLICY, page_environment

AGGREGATES = (
    "Dice, IoU, precision, recall and accuracy are means over the images with the object, then over classes; "
    "a missed object counts as 0, and HD95 and HD are means over the others. Surfaces are compared in whole "
    "images, in 3-D in volumes; NSD is the share of them within 2 mm (or px) of each other. All images: an "
    "image without truth and mask counts as 1. Pooled: the pixels of all images, classes and seeds together. "
    "Two classes: the mean of the IoU of object and background. ± is the standard deviation over seeds."
)
CLAIM = (
    "Our rows start from the weights that they name. Random weights and segmed-tiny were not trained on "
    "photographs as SAM was: such rows cannot be compared with published results of pretrained models."
)
WEIGHTS = "started from"
_DIGITS = {"hd95": 1, "hd": 1, "ms": 1, "boxless": 0}


def write_reports(found: Sequence[TableResult], out: Path, command: str) -> list[Path]:
    """Write `results.json`, `results.md` and `results.html`.

    Args:
        found: Results of all tables, with skipped ones.
        out: Folder of the files.
        command: The command of the benchmark, for the reader.

    Returns:
        Paths of the files.
    """
    files = [out / f"results.{kind}" for kind in ("json", "md", "html")]
    write_json(
        files[0], _plain({"command": command, "program": segmed.__version__, "tables": [*map(_facts, found)]})
    )
    files[1].write_text(_markdown(found, command), encoding="utf-8")
    files[2].write_text(_html(found, command), encoding="utf-8")
    return files


def _where(where: str) -> str:
    return (
        where.replace("@", "at ").replace(">", "on ").replace("=", "with ")
        + (" px" if where.startswith("@") else "")
        if where
        else "test"
    )


def _cell(row: Row, key: str) -> str:
    return row.values[key].text(_DIGITS.get(key, 3)) if key in row.values else "–"


def _versions(comparison: Comparison) -> str:
    """Format published versions, such as 0.6757 (Table III, Table IV); 0.8095 (Table II)."""
    digits = {"hausdorff": 2, "parameters": 1, "trainable": 1}.get(comparison.metric, 4)
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
        "gains": [asdict(gain) for gain in found.gains],
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
    """Replace numbers that are not finite, which JSON lacks, by None."""
    if isinstance(content, Mapping):
        return {key: _plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def _markdown(found: Sequence[TableResult], command: str) -> str:
    lines = [
        "# Benchmark",
        "",
        f"`{command}` · SegMed {segmed.__version__} · {time.strftime('%Y-%m-%d')}",
        "",
    ]
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
        if one.gains:
            lines += ["", "Differences of the Dice of whole patients:", ""]
            lines += [f"- {gain.text()}" for gain in one.gains]
        lines += [""]
        if one.classes:
            heads = ["Dice", *(e.entry.name for e, r in one.rows if not r.where)]
            body = [
                [
                    key.removeprefix("dice:").replace("_", " "),
                    *(_cell(r, key) for _, r in one.rows if not r.where),
                ]
                for key in one.classes
            ]
            lines += [*_table(heads, body), ""]
        if one.comparisons:
            heads = ["row", "on", "metric", f"published: {table.source}", "ours", ""]
            body = [
                [c.entry, _where(c.where), c.title, _versions(c), _ours(c), c.odd] for c in one.comparisons
            ]
            lines += [*_table(heads, body), ""]
    return "\n".join(lines)


def _table(heads: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    rows = [[cell.replace("|", "\\|") for cell in row] for row in body]
    return [
        f"| {' | '.join(heads)} |",
        "|" + "---|" * len(heads),
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def _html(found: Sequence[TableResult], command: str) -> str:
    environment = page_environment(Path(__file__).parent)
    environment.filters |= {
        "where": _where,
        "cell": _cell,
        "versions": _versions,
        "ours": _ours,
        "picture": _picture,
    }
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
    """Plot Dice by the largest move of the boxes' sides as SVG, with a line per row."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    for entry in found.entries:
        if entry.curve:
            axes.plot(
                [100 * x for x in entry.curve],
                [n.mean for n in entry.curve.values()],
                "o-",
                label=entry.entry.name,
            )
    axes.set_xlabel("largest move of each side of a box, % of the side")
    axes.set_ylabel("Dice")
    axes.set_ylim(0, 1)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    out = io.BytesIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()
