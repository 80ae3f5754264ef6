"""`segmed models`: look at trained versions, compare them, and choose which one is served."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from segmed.commands.export_model import export_model
from segmed.commands.import_model import import_model
from segmed.places import REGISTRY

if TYPE_CHECKING:  # torch is imported late, so that --help answers at once
    from segmed.registry.gate import LabelChange
    from segmed.registry.model_version import ModelVersion, VersionRecord
    from segmed.registry.versions import Registry

app = typer.Typer(
    help="Trained versions of the models: list, compare, serve, roll back.", no_args_is_help=True
)
app.command("export")(export_model)
app.command("import")(import_model)
console = Console(stderr=True)

Folder = Annotated[Path, typer.Option("--registry", help="Folder that training keeps its models in.")]
Name = Annotated[str, typer.Argument(help="Name of the model, as `segmed models list` shows it.")]
Reason = Annotated[str, typer.Option(help="Kept in the history.")]


@app.command("list")
def list_models(
    registry: Folder = REGISTRY,
    name: Annotated[str, typer.Argument(help="Only this model; all if not given.")] = "",
) -> None:
    """Show all versions, which one is served, and what the gate said."""
    with _opened(registry) as models:
        table = Table("model", "version", "served", "created (UTC)", "parent", "cases", "Dice", "gate")
        for model in [name] if name else models.names():
            for version in models.versions(model):
                table.add_row(model, version.version, "yes" if version.served else "", *_summary(version))
        if not table.row_count:
            raise FileNotFoundError(
                f"There is no trained version of {name or 'any model'} in {registry}. Train one: segmed "
                f"train --method {name or 'segmed'} --studies FOLDER"
            )
        Console().print(table)


@app.command()
def show(
    name: Name,
    registry: Folder = REGISTRY,
    version: Annotated[str, typer.Argument(help="The served one if not given.")] = "",
) -> None:
    """Show one version: scores per label, data, settings, and why it is served or not."""
    with _opened(registry) as models:
        served = models.served(name)
        if not version and served is None:
            raise ValueError(
                f"No version of {name} is served. Give one of those that `segmed models list` shows."
            )
        found = models.get(name, version) if version or served is None else served
        out = Console()
        out.print(f"{name} {found.version}{', served' if found.served else ''}", highlight=False)
        if found.record is None:
            raise ValueError(f"{name} {found.version} is damaged and is never served: {found.damage}.")
        _show_record(out, found.record)
        for move in models.history(name):
            if found.version in (move.version, move.previous):
                text = (
                    f"{move.time}  {move.action}: {move.previous or 'untrained'} → "
                    f"{move.version or 'untrained'}"
                )
                out.print(escape(f"{text}  {move.reason}"), highlight=False)


@app.command()
def diff(
    name: Name,
    old: Annotated[str, typer.Argument(help="Version to start from.")],
    new: Annotated[str, typer.Argument(help="Version to compare with it.")],
    registry: Folder = REGISTRY,
) -> None:
    """Show what changed between two versions: data, settings, scores per label."""
    with _opened(registry) as models:
        from segmed.registry.version_diff import diff_versions

        found = diff_versions(models.get(name, old), models.get(name, new))
        out = Console()
        out.print(f"{name}: {old} → {new}", highlight=False)
        data = Table("data", "images")
        for what in ("added", "removed", "relabelled", "moved"):
            if images := getattr(found, what):
                data.add_row(what, escape(", ".join(images)))
        if not data.row_count:
            data.add_row("the same", "")
        out.print(data)
        settings = Table("setting", "before", "after")
        for key, (before, after) in found.settings.items():
            settings.add_row(escape(key), *("" if v is None else escape(str(v)) for v in (before, after)))
        if settings.row_count:
            out.print(settings)
        out.print(_changes(found.labels))
        if found.unshared:
            out.print(
                f"{found.unshared} scores are left out, because only one of the two was validated on them."
            )


@app.command()
def promote(
    name: Name,
    version: Annotated[str, typer.Argument(help="Version to serve.")],
    registry: Folder = REGISTRY,
    reason: Reason = "",
    anyway: Annotated[bool, typer.Option("--anyway", help="Even if the gate has rejected it.")] = False,
) -> None:
    """Serve a version from the next prompt on."""
    with _opened(registry) as models:
        record = models.get(name, version).record
        verdict = record.verdict if record else None
        if verdict and not verdict.accepted and not anyway:
            raise ValueError(
                f"The gate has rejected {name} {version}. {verdict.reason} Add --anyway to serve it still."
            )
        models.promote(name, version, reason or "by hand")
        _say(f"{name} {version} is served from the next prompt on.")


@app.command()
def rollback(name: Name, registry: Folder = REGISTRY, reason: Reason = "") -> None:
    """Serve the previously served version again; before the first version, that is the untrained method."""
    with _opened(registry) as models:
        before = models.rollback(name, reason or "by hand")
        _say(f"{name} {before.version if before else 'untrained'} is served from the next prompt on.")


def _summary(version: ModelVersion) -> tuple[str, ...]:
    from segmed.registry.gate import label_changes

    record = version.record
    if record is None:
        return "", "", "", "", escape(f"damaged: {version.damage}")
    means = label_changes(record.scores, record.scores)
    dice = f"{sum(m.dice for m in means) / len(means):.3f}" if means else ""
    gate = "not asked" if record.verdict is None else "accepted" if record.verdict.accepted else "rejected"
    return record.created[:19], record.parent or "", str(len({s.case for s in record.scores})), dice, gate


def _show_record(out: Console, record: VersionRecord) -> None:
    from segmed.registry.gate import label_changes

    out.print(
        f"created {record.created} by SegMed {record.code}, from {record.parent or 'the base weights'}",
        highlight=False,
    )
    parts = ", ".join(f"{len(images)} {part}" for part, images in record.data.split.items())
    out.print(
        escape(f"data: {len(record.data.images)} images ({parts}), fingerprint {record.data.digest[:16]}"),
        highlight=False,
    )
    for key, value in record.settings.items():
        out.print(escape(f"{key}: {value}"), highlight=False)
    if record.verdict:
        out.print(
            escape(record.verdict.reason), highlight=False, style="" if record.verdict.accepted else "yellow"
        )
    if record.verdict and record.verdict.labels:
        out.print(_changes(record.verdict.labels))
        return
    table = Table("label", "cases", "Dice", "NSD", "HD95", "missed")
    for m in label_changes(record.scores, record.scores):
        shown = f"{m.dice:.3f}", _share(m.nsd), _distance(m.hd95), str(m.missed)
        table.add_row(escape(m.label), str(m.cases), *shown)
    out.print(table)


def _changes(labels: Sequence[LabelChange]) -> Table:
    pairs = [title for name in ("NSD", "HD95", "missed") for title in (name, "before")]
    table = Table("label", "cases", "Dice", "before", "change", *pairs)
    for c in labels:
        table.add_row(
            escape(c.label),
            str(c.cases),
            f"{c.dice:.3f}",
            f"{c.old_dice:.3f}",
            f"{c.gain:+.3f}",
            _share(c.nsd),
            _share(c.old_nsd),
            _distance(c.hd95),
            _distance(c.old_hd95),
            str(c.missed),
            str(c.old_missed),
        )
    return table


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _distance(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


@contextmanager
def _opened(folder: Path) -> Iterator[Registry]:
    """The registry; what goes wrong with it becomes one line in red."""
    from segmed.registry.versions import Registry

    try:
        if not folder.is_dir():
            raise FileNotFoundError(
                f"There is no folder {folder}. Give the one that training keeps its models in."
            )
        yield Registry(folder)
    except (ValueError, OSError) as error:
        _say(str(error), "red")
        raise typer.Exit(2) from error


def _say(text: str, style: str = "") -> None:
    console.print(text, style=style or None, markup=False, highlight=False, soft_wrap=True)
