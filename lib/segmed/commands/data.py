"""`segmed data`: which datasets can be read, and whether a downloaded one is complete."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:  # torch is imported late, so that --help answers at once
    from segmed.data.slices import SliceDataset
    from segmed.data.survey import Survey

app = typer.Typer(help="Datasets to train on and to measure with: list, check.", no_args_is_help=True)
console = Console(stderr=True)
_NAMED = 10  # skipped files that are named


@app.command("list")
def list_datasets() -> None:
    """Show the datasets that can be read, where to get them, and how their folders must look."""
    from segmed.data.datasets.catalogue import DATASETS

    table = Table("name", "what it is", "folder", "from", "options", show_lines=True)
    for entry in DATASETS.values():
        cells = (entry.name, entry.title, entry.layout, entry.source, ", ".join(entry.options))
        table.add_row(*(escape(cell) for cell in cells))
    Console().print(table)


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="Dataset, as `segmed data list` shows it.")],
    root: Annotated[Path, typer.Argument(help="Its folder.")],
    sheet: Annotated[
        Path | None, typer.Option(help="PNG to write, with slices and their labels outlined.")
    ] = None,
    sums: Annotated[Path | None, typer.Option(help="File to write, for `sha256sum --check`.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", help="KEY=VALUE of the dataset, repeatable.", metavar="K=V"),
    ] = None,
) -> None:
    """Read a whole dataset and say what it holds, and what of it cannot be used.

    Example: `segmed data check brats BraTS2023 --option modality=t2f --sheet brats.png`
    """
    from segmed.data.checksums import checksums, common_folder, fingerprint
    from segmed.data.datasets.catalogue import load_dataset
    from segmed.data.sheet import label_sheet
    from segmed.data.survey import survey

    try:
        for file in (sheet, sums):
            if file and not file.parent.is_dir():
                raise FileNotFoundError(f"The folder {file.parent} does not exist. Make it first.")
        data = load_dataset(name, root, **_options(option))
        bar = Progress(
            TextColumn("reading"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
        )
        with bar:
            task = bar.add_task("", total=None)
            found = survey(data, lambda done, total: bar.update(task, completed=done, total=total))
        _print(data, found)
        if sums:
            with console.status("checksums"):
                digests = checksums(data)
            lines = [f"{digest}  {path}" for path, digest in digests.items()]
            sums.write_text("\n".join(lines) + "\n", encoding="utf-8")
            console.print(f"fingerprint {fingerprint(digests)}", highlight=False)
            console.print(
                f"wrote {sums}, to be used in {common_folder(data)}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
        if sheet:
            with console.status("drawing"):
                label_sheet(data, found.examples, sheet)
            console.print(f"wrote {sheet}", markup=False, highlight=False, soft_wrap=True)
    except (ValueError, OSError) as error:
        console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error


@app.command()
def yolo(
    name: Annotated[str, typer.Argument(help="Dataset, as `segmed data list` shows it.")],
    root: Annotated[Path, typer.Argument(help="Its folder.")],
    out: Annotated[Path, typer.Option(help="Folder to write, new or empty.")],
    min_area: Annotated[int, typer.Option(help="px; smaller pieces of a label get no box.")] = 100,
    seed: Annotated[
        int, typer.Option(help="Of the split by patient: 60 % to train, 20 % to validate and test.")
    ] = 0,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", help="KEY=VALUE of the dataset, repeatable.", metavar="K=V"),
    ] = None,
) -> None:
    """Write a dataset as YOLO trainers want it: PNG pictures, boxes as text, data.yaml.

    Example: `segmed data yolo brats BraTS2023 --option region="whole tumour" --out brats-yolo`
    """
    from segmed.data.datasets.catalogue import load_dataset
    from segmed.data.split import split_patients
    from segmed.data.yolo_export import export_yolo

    try:
        data = load_dataset(name, root, **_options(option))
        split = split_patients(data.patients, seed, 0.2, 0.2)
        bar = Progress(
            TextColumn("writing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
        )
        with bar:
            task = bar.add_task("", total=len(data))
            counts = export_yolo(data, split, out, min_area, lambda done, _: bar.update(task, completed=done))
        parts = ", ".join(f"{part} {count}" for part, count in counts.items())
        console.print(f"wrote {out}, boxes: {parts}", markup=False, highlight=False, soft_wrap=True)
    except (ValueError, OSError) as error:
        console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error


def _options(pairs: list[str] | None) -> dict[str, str | list[str]]:
    if wrong := [pair for pair in pairs or () if "=" not in pair]:
        raise ValueError(f"--option {wrong[0]!r} is not understood. Give KEY=VALUE.")
    return {key: _value(value) for key, value in (pair.split("=", 1) for pair in pairs or ())}


def _print(data: SliceDataset, found: Survey) -> None:
    out = Console(highlight=False)
    out.print(
        f"{found.patients} patients, {found.volumes} images, {found.slices} slices, {found.labelled} of them "
        f"labelled"
    )
    out.print(f"size    {_between(*found.sizes)} voxels")
    out.print(f"spacing {_between(*found.spacing)} mm" if data.unit == "mm" else "spacing not told")
    if data.lateralised:
        out.print(f"tells sides: {', '.join(data.lateralised)}; not to be mirrored or turned", markup=False)
    if data.published:
        parts = (data.published.train, data.published.validation, data.published.test)
        out.print(f"published split: {', '.join(str(len(part)) for part in parts)} to train, validate, test")
    table = Table("label", "name", "voxels", "share", "slices", "patients")
    total = sum(label.voxels for label in found.labels) or 1
    for label in found.labels:
        cells = (label.voxels, f"{label.voxels / total:.1%}", label.slices, label.patients)
        table.add_row(str(label.value), escape(label.name), *map(str, cells))
    out.print(table)
    out.print(f"skipped: {len(found.skipped)}")
    for item in found.skipped[:_NAMED]:
        out.print(f"  {item.patient}: {item.reason}", markup=False, soft_wrap=True)
    if len(found.skipped) > _NAMED:
        out.print(f"  and {len(found.skipped) - _NAMED} more")


def _between(low: tuple[float, ...], high: tuple[float, ...]) -> str:
    """(35, 51, 40), or (31–43, 40–59, 24–47) where they differ."""
    return " × ".join(f"{a:.4g}" if a == b else f"{a:.4g}–{b:.4g}" for a, b in zip(low, high, strict=True))


def _value(text: str) -> str | list[str]:
    """Several values stand between commas."""
    return [part.strip() for part in text.split(",")] if "," in text else text
