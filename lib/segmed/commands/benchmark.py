"""`segmed benchmark`: the tables of papers, with one's own numbers beside the published ones."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from segmed.commands.train import literal, pairs

if TYPE_CHECKING:  # torch is imported late, so that --help answers at once
    from segmed.benchmark.collected import TableResult
    from segmed.benchmark.plan import Plan

console = Console(stderr=True)
_QUICK = {"steps": 20, "batch": 4, "patients": 12, "slices": 3, "curve": 6, "points": 4}


def benchmark(
    tables: Annotated[list[str] | None, typer.Argument(help="Tables, or all; none lists them.")] = None,
    data: Annotated[
        list[str] | None,
        typer.Option("--data", help="NAME=FOLDER of a dataset, repeatable.", metavar="NAME=FOLDER"),
    ] = None,
    methods: Annotated[
        str, typer.Option(help="Rows or methods, with commas; all rows of the tables if not given.")
    ] = (""),
    backbone: Annotated[
        str,
        typer.Option(
            help="SAM weights: name of `segmed weights list`, folder, .pth file, or Hugging Face id."
        ),
    ] = "segmed-tiny",
    own_backbone: Annotated[
        list[str] | None,
        typer.Option(
            help="METHOD=WEIGHTS of a method on other weights than SAM's.", metavar="METHOD=WEIGHTS"
        ),
    ] = None,
    image_size: Annotated[int, typer.Option(help="Input size in px, if not that of the weights.")] = 0,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="KEY=VALUE of all methods that know it, such as encoder=resnet18.", metavar="K=V"
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="How many, from 0; the spread is over them.")] = 1,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of jobs and reports; go on in the same one.")
    ] = (Path("benchmark")),
    steps: Annotated[int | None, typer.Option(help="Training steps instead of passes.")] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the data; those of each recipe if not given.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(help="Slices per step; those of each recipe if not given.")
    ] = None,
    patients: Annotated[int | None, typer.Option(help="At most so many per dataset, at random.")] = None,
    slices: Annotated[int | None, typer.Option(help="At most so many per patient, evenly spaced.")] = None,
    augment: Annotated[
        bool | None,
        typer.Option(
            "--augment/--no-augment", help="Augment slices at random; as each recipe says if not given."
        ),
    ] = None,
    slice_split: Annotated[
        bool, typer.Option("--slice-split", help="Split by slices where that was published; leaks patients.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Few patients and steps, to see that all of it runs.")
    ] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …; the GPU if there is one.")] = "",
    workers: Annotated[int, typer.Option(help="Jobs at the same time, by Ray.")] = 1,
    ray_address: Annotated[str, typer.Option(help="Of a Ray cluster; this machine alone if not given.")] = "",
) -> None:
    """Train and measure methods on datasets, and write the tables of papers with your numbers beside theirs.

    A run that was interrupted goes on when the same command is given again. Tables whose dataset is not given
    are skipped.

    Example: `segmed benchmark lgg-baselines lgg-sam --data lgg=LGG --quick --out try`
    """
    from segmed.benchmark.plan import plan
    from segmed.benchmark.report import write_reports
    from segmed.benchmark.settings import BenchmarkJob, Budget
    from segmed.benchmark.tables import TABLES, Entry, chosen_tables

    if not tables:
        _list()
        return
    try:
        given = {"steps": steps, "epochs": epochs, "batch": batch, "patients": patients, "slices": slices}
        bounds = _bounds(given, quick)
        import torch

        template = BenchmarkJob(
            next(iter(TABLES)),
            Entry("", "classical"),
            0,
            {name: str(Path(folder).resolve()) for name, folder in pairs(data, str).items()},
            out.resolve(),
            backbone if not Path(backbone).exists() else str(Path(backbone).resolve()),
            image_size or None,
            pairs(own_backbone, str),
            Budget(**bounds, augment=augment),
            slice_split,
            device or ("cuda" if torch.cuda.is_available() else "cpu"),
        )
        rows = [name.strip() for name in methods.split(",") if name.strip()]
        plans = plan(chosen_tables(tables), rows, seeds, pairs(setting, literal), template)
        for one in plans:
            if one.skipped:
                console.print(
                    f"{one.table.name}: skipped, {one.skipped}", style="yellow", markup=False, soft_wrap=True
                )
        if not any(one.jobs for one in plans):
            raise ValueError("None of the tables can be made.")
        out.mkdir(parents=True, exist_ok=True)
        found = _run(plans, workers, ray_address)
        files = write_reports(found, out, _command())
    except KeyboardInterrupt:
        console.print("Interrupted. Give the same command again to go on.", style="yellow")
        raise typer.Exit(130) from None
    except (ValueError, OSError) as error:
        console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error
    for made in found:
        for entry in made.entries:
            text = f"{made.table.name}, {entry.entry.name}: "
            text += ", ".join(
                f"{row.where or 'test'} {key} {row.values[key].text()}"
                for row in entry.rows
                for key in ("dice", "map50")
                if key in row.values
            )
            console.print(f"{text} {entry.reason}".strip(), markup=False, highlight=False, soft_wrap=True)
    for file in files:
        console.print(f"wrote {file}", markup=False, highlight=False, soft_wrap=True)
    if not any(made.rows for made in found):
        raise typer.Exit(2)


def _bounds(given: dict[str, int | None], quick: bool) -> dict[str, int]:
    """The size of the jobs: what the user gives, over the small sizes of --quick.

    Raises:
        ValueError: steps and epochs are both given.
    """
    if given["steps"] and given["epochs"]:
        raise ValueError("Give --steps or --epochs, not both.")
    bounds = {**(_QUICK if quick else {}), **{k: v for k, v in given.items() if v is not None}}
    if given["epochs"]:
        bounds.pop("steps", None)
    return bounds


def _run(plans: Sequence[Plan], workers: int, address: str) -> list[TableResult]:
    from segmed.benchmark.collected import TableResult, collect
    from segmed.benchmark.numbers import compared
    from segmed.benchmark.ray_runner import run_jobs

    jobs = [job for one in plans for job in one.jobs]
    bar = Progress(
        TextColumn("{task.fields[count]}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
        console=console,
    )
    task = bar.add_task("reading", total=len(jobs), count=f"0/{len(jobs)} jobs")

    def tell(shares: Sequence[float], doing: str) -> None:
        done = sum(share == 1 for share in shares)
        bar.update(task, completed=sum(shares), description=doing, count=f"{done}/{len(jobs)} jobs")

    with bar:
        results = run_jobs(jobs, workers, address, tell)
        tell([1.0] * len(jobs), "done")
    found, start = [], 0
    for one in plans:
        mine = slice(start, start + len(one.jobs))
        start = mine.stop
        if one.skipped:
            comparisons = tuple(compared(one.table.published, []))
            found.append(TableResult(one.table, one.skipped, comparisons=comparisons))
        else:
            found.append(collect(one.table, jobs[mine], results[mine]))
    return found


def _list() -> None:
    from rich.markup import escape
    from rich.table import Table

    from segmed.benchmark.tables import TABLES

    shown = Table("table", "what it is", "dataset", "rows", show_lines=True)
    for table in TABLES.values():
        cells = (table.name, table.title, table.dataset or "none", ", ".join(e.name for e in table.entries))
        shown.add_row(*(escape(cell) for cell in cells))
    Console().print(shown)


def _command() -> str:
    """As it was given, by the name of the program alone."""
    return shlex.join(["segmed", *sys.argv[1:]])
