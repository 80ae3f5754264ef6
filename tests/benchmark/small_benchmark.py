"""`segmed benchmark` as the tests run it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from segmed.benchmark.settings import BenchmarkJob, Budget
from segmed.benchmark.tables import Entry
from segmed.cli import app
from typer.testing import CliRunner, Result


def run_benchmark(*words: object) -> Result:
    return CliRunner().invoke(app, ["benchmark", *map(str, words)])


def data_options(folders: dict[str, Path]) -> list[str]:
    return [word for name, folder in folders.items() for word in ("--data", f"{name}={folder}")]


def numbers_in(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "results.json").read_text(encoding="utf-8")))


def job_of(
    folders: dict[str, Path], backbone: Path, out: Path, steps: int = 12, **changes: Any
) -> BenchmarkJob:
    budget = Budget(steps=steps, batch=4, curve=0)
    mine = {"lgg": str(folders["lgg"])}
    return BenchmarkJob(
        "lgg-sam", Entry("sam", "medsam"), 0, mine, out, str(backbone), budget=budget, **changes
    )
