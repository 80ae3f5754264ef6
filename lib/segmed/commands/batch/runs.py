"""`segmed batch`: segmentation of an archive that survives interruptions."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from segmed.commands.batch.review import review
from segmed.commands.prediction.options import Backbone, Device, Models, Precision, Window, say
from segmed.places import REGISTRY

if TYPE_CHECKING:  # numpy and torch are imported late, so that --help answers at once
    from segmed.batch.report import BatchReport
    from segmed.batch.scheduler import RunState

app = typer.Typer(
    help="Segment many images: run, resume, status, report, export of measurements, review.",
    no_args_is_help=True,
)
app.command()(review)
Out = Annotated[Path, typer.Argument(help="Folder of the run, as given by --out.")]
_MIB = 2**20
_STOPPED, _FAILURES = 3, 1  # exit codes
_LOG_SECONDS = 60.0  # between two lines in a log file


@app.command()
def run(
    source: Annotated[
        str, typer.Argument(help="Folder, .txt file with one path a line, image, or DICOMweb address.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for manifest and results.")],
    model: Annotated[
        str, typer.Option(help="Method; add _3d to follow boxes through the volume.")
    ] = "segmed_3d",
    version: Annotated[
        str, typer.Option(help="Of `segmed models list`, or untrained; the served one if not given.")
    ] = "",
    boxes: Annotated[
        Path | None, typer.Option(help="Boxes of the images: CSV, JSON or COCO, see docs/batch.md.")
    ] = None,
    detector: Annotated[
        bool, typer.Option("--detector", help="Prompt the model with what the trained detector finds.")
    ] = False,
    backbone: Backbone = "",
    window: Window = "auto",
    device: Device = "",
    precision: Precision = "auto",
    registry: Models = REGISTRY,
    extension: Annotated[str, typer.Option("--format", help=".nii.gz, .nrrd or .seg.nrrd.")] = ".nii.gz",
    seg: Annotated[bool, typer.Option("--seg", help="Also write DICOM SEG, for DICOM series.")] = False,
    send: Annotated[bool, typer.Option("--send", help="Send DICOM SEG back to the PACS.")] = False,
    previews: Annotated[bool, typer.Option("--previews", help="Write a picture of each image.")] = False,
    uncertainty: Annotated[
        bool,
        typer.Option("--uncertainty", help="Measure how sure the model is, for `segmed batch review`."),
    ] = False,
    filters: Annotated[
        list[str] | None,
        typer.Option("--filter", help="Search key of the PACS: StudyDate=20260101-. Repeatable."),
    ] = None,
    modality: Annotated[
        list[str] | None, typer.Option(help="Of series of the PACS, such as CT. Repeatable.")
    ] = None,
    workers: Annotated[
        int, typer.Option(help="Number of workers; several need Ray: pip install 'segmed[cluster]'.")
    ] = 1,
    ray_address: Annotated[
        str, typer.Option(help="Address of a Ray cluster whose machines see the same folders.")
    ] = "",
    shard: Annotated[str, typer.Option(help="Part i of n as i/n, for arrays of jobs.")] = "0/1",
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Process failed items again.")] = False,
    rescan: Annotated[bool, typer.Option("--rescan", help="Look for images that have come since.")] = False,
    memory: Annotated[int, typer.Option(help="For the images under way, in MiB.")] = 2048,
    patience: Annotated[float, typer.Option(help="Minutes to wait for a PACS that is away.")] = 240.0,
    ignore_server: Annotated[
        bool, typer.Option("--ignore-server", help="Go on while a server here answers prompts.")
    ] = False,
    nice: Annotated[int, typer.Option(help="Priority on the CPU, 0 to 19; higher numbers give way.")] = 5,
) -> None:
    """Segment all images of a folder, a list or a PACS.

    The same command continues a run that was interrupted, at any point. Exit code: 0 all items are done, 1
    some failed, 2 wrong use, 3 the run stopped early and can be continued.

    Example: `segmed batch run CTs --model unet --out liver` or `segmed batch run
    http://127.0.0.1:8042/dicom-web --filter StudyDate=20260101- --model medsam_3d --detector --send --out
    january`
    """
    with _explained():
        import os

        from segmed.batch.items import Shard
        from segmed.batch.settings import BOXES, DETECTOR, NOTHING, RunSettings, check_prompts

        if boxes and detector:
            raise ValueError("--boxes and --detector exclude each other. Give one of them.")
        if not 0 <= nice <= 19:
            raise ValueError(f"--nice {nice} must be from 0 to 19.")
        if memory < 1 or not patience >= 0:
            raise ValueError("--memory must be at least 1 MiB, and --patience at least 0 minutes.")
        pacs = source.startswith(("http://", "https://"))
        settings = RunSettings(
            source if pacs else str(Path(source).absolute()),
            model,
            version,
            backbone,
            precision,
            window,
            BOXES if boxes else DETECTOR if detector else NOTHING,
            str(boxes.absolute()) if boxes else "",
            extension=extension if extension.startswith(".") else f".{extension}",
            seg=seg,
            send=send,
            previews=previews,
            filters=_pairs(filters or []),
            modalities=tuple(name.strip().upper() for name in modality or ()),
            device=device,
            registry=str(registry.absolute()),
            uncertainty=uncertainty,
        )
        part = Shard.parse(shard)
        check_prompts(settings)
        from segmed.batch.runs import RunOptions, run_batch
        from segmed.batch.scheduler import Limits

        options = RunOptions(
            part,
            workers,
            ray_address,
            retry_failed,
            rescan,
            Limits(memory * _MIB, patience * 60),
            not ignore_server,
        )
        os.nice(max(nice - os.nice(0), 0))
        with _shown() as tell:
            end = run_batch(settings, out, options, tell, say)
        if part.count == 1:
            from segmed.batch.report import export_measurements

            say(f"{export_measurements(out, out / 'measurements.csv')} rows in {out / 'measurements.csv'}")
        say(f"{end.state.done} of {end.state.total} items are done, {end.state.failed} failed.")
        if end.stopped:
            say(end.stopped, "yellow")
            raise typer.Exit(_STOPPED)
        if end.state.failed:
            say(f"`segmed batch report {out}` tells why; --retry-failed processes them again.", "yellow")
            raise typer.Exit(_FAILURES)


@app.command()
def status(out: Out) -> None:
    """Count the items by state, also while a run is in progress."""
    with _explained():
        from segmed.batch.report import collect

        _show(collect(out), failures=False)


@app.command()
def report(
    out: Out,
    write: Annotated[Path | None, typer.Option("--json", help="Also write the report as JSON.")] = None,
) -> None:
    """Tell what failed and why, which shards are missing, and what the masks contain.

    Exit code 1 if the run is not complete.
    """
    with _explained():
        from segmed.batch.report import collect
        from segmed.imaging.durable import appear_whole

        found = collect(out)
        _show(found, failures=True)
        if write:
            with appear_whole(write) as part:
                part.write_text(json.dumps(found.to_json(), indent=1) + "\n", encoding="utf-8")
            say(f"wrote {write}")
        if not found.is_complete:
            raise typer.Exit(_FAILURES)


@app.command()
def export(
    out: Out,
    to: Annotated[Path, typer.Option("--to", help="File to write: .csv or .parquet.")],
) -> None:
    """Write the measurements of all shards as one table: a row for each structure of each image."""
    with _explained():
        from segmed.batch.report import export_measurements

        say(f"wrote {export_measurements(out, to)} rows to {to}")


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (ValueError, OSError) as error:
        say(str(error), "red")
        raise typer.Exit(2) from error


@contextmanager
def _shown() -> Iterator[Callable[[RunState], None]]:
    """A line with progress, rate, time left and failures."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from segmed.commands.prediction.options import console

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)

        told = time.monotonic()

        def tell(state: RunState) -> None:
            nonlocal told
            left = "?" if math.isnan(state.seconds_left) else _duration(state.seconds_left)
            text = f"{state.rate * 60:.4g}/min, {left} left, {state.failed} failed"
            if not console.is_terminal and time.monotonic() - told >= _LOG_SECONDS:
                told = time.monotonic()
                say(f"{state.done + state.failed} of {state.total}: {text} {state.pause}".rstrip())
            bar.update(
                task,
                total=state.total,
                completed=state.done + state.failed,
                description=f"{text}; {escape(state.pause[:60])}" if state.pause else text,
            )

        yield tell


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min" if minutes else f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes < 2880 else f"{minutes / 1440:.1f} days"


def _show(found: BatchReport, failures: bool) -> None:
    settings, table = found.settings, Table("state", "items")
    for state in sorted(found.states):
        table.add_row(state, str(found.states[state]))
    text = f"{settings['model']} {settings['version']} on {settings['source']}"
    Console().print(text, markup=False, highlight=False, soft_wrap=True)
    Console().print(table)
    if found.unsent:
        say(f"{found.unsent} results have not been sent to the PACS yet.")
    if found.missing:
        say(f"These shards have not begun: {', '.join(found.missing)}.", "yellow")
    if found.differing:
        say(f"These manifests have other settings: {', '.join(found.differing)}.", "yellow")
    if not failures:
        return
    done = found.states.get("done", 0)
    say(f"{found.empty} of {done} finished images contain nothing; workers took {_duration(found.seconds)}.")
    if found.same_content:
        say(f"{found.same_content} images have the content of another one.")
    for note in found.notes:
        say(note)
    if found.failures:
        reasons = Table("failed", "why", "such as")
        for group in found.failures:
            reasons.add_row(str(group.count), escape(group.error), escape(", ".join(group.examples)))
        Console().print(reasons)


def _pairs(filters: list[str]) -> dict[str, str]:
    if wrong := [text for text in filters if "=" not in text]:
        raise ValueError(f"--filter {wrong[0]!r} is not understood. Give KEY=VALUE.")
    return dict(text.split("=", 1) for text in filters)
