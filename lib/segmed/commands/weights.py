"""`segmed weights`: published weights by name: list, fetch, verify, locate."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

if TYPE_CHECKING:  # huggingface_hub is imported late, so that --help answers at once
    from segmed.weights.table import Published

app = typer.Typer(help="Published weights by name: list, fetch, verify, locate.", no_args_is_help=True)
console = Console(stderr=True)

Name = Annotated[str, typer.Argument(help="As `segmed weights list` shows it.")]


@app.command("list")
def list_weights(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the table as Markdown, for documents.")
    ] = False,
) -> None:
    """List all weights that SegMed knows by name, and which of them are on this machine."""
    from segmed.weights.lookup import fetched
    from segmed.weights.table import PUBLISHED, markdown_table

    with _told():
        if markdown:
            print(markdown_table())
            return
        table = Table("name", "good for", "MB", "use it with", "here", "licence")
        table.columns[0].no_wrap = True
        for weights in PUBLISHED.values():
            here = "yes" if fetched(weights) else ""
            use = weights.setting or "not supported yet"
            table.add_row(weights.name, weights.good_for, str(weights.megabytes), use, here, weights.licence)
        Console().print(table)


@app.command()
def get(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Accept the licence without being asked.")] = False,
    update: Annotated[
        bool,
        typer.Option("--update", help="Fetch again, and accept that the authors have changed the files."),
    ] = False,
) -> None:
    """Fetch weights once; later commands use them by name, also without a network.

    Proxies are taken from HTTPS_PROXY; HF_HUB_OFFLINE=1 forbids the network. If a download fails, give the
    same command again.

    Example: `segmed weights get medsam-vit-base`
    """
    from segmed.weights.fetch import fetch
    from segmed.weights.lookup import fetched
    from segmed.weights.table import find

    with _told():
        weights = find(name)
        if not weights.page and (update or fetched(weights) is None):
            _ask(weights, yes)
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
            task = bar.add_task(name, total=None)
            path = fetch(
                weights, lambda done, total: bar.update(task, completed=done, total=total or None), update
            )
        _say(f"{name} is in {path}")
        if not weights.kind:
            _say(f"SegMed cannot load it yet: {weights.good_for}.", "yellow")
        else:
            _say(f"Use it: segmed serve {weights.setting}, or segmed predict … {weights.options}")


@app.command()
def verify(
    name: Annotated[str, typer.Argument(help="Only these weights; all that are here if not given.")] = "",
) -> None:
    """Read fetched weights again and compare them with all known checksums."""
    from segmed.weights.fetch import verify as check
    from segmed.weights.lookup import fetched
    from segmed.weights.table import PUBLISHED, find

    with _told():
        chosen = [find(name)] if name else [w for w in PUBLISHED.values() if fetched(w)]
        if not chosen:
            raise FileNotFoundError(
                "No published weights are on this machine. Fetch some: segmed weights get NAME"
            )
        faults = 0
        for weights in chosen:
            try:
                _say(f"{weights.name}: intact, compared with {check(weights)}")
            except (ValueError, OSError) as error:
                faults += 1
                _say(f"{weights.name}: {error}", "red")
        if faults:
            raise typer.Exit(2)


@app.command()
def where(name: Name) -> None:
    """Print the file or folder of fetched weights, for other programs."""
    from segmed.weights.lookup import fetched
    from segmed.weights.table import find

    with _told():
        weights = find(name)
        path = fetched(weights)
        if path is None:
            raise FileNotFoundError(f"{name} is not on this machine. Fetch it: segmed weights get {name}")
        print(path)


def _ask(weights: Published, yes: bool) -> None:
    """Show the licence; without --yes, go on only if the user says so."""
    from segmed.weights.places import weights_folder

    folder = "the cache of Hugging Face" if weights.repository else str(weights_folder())
    _say(
        f"{weights.name}: {weights.good_for}\nfrom {weights.source}, about {weights.megabytes} MB, into "
        f"{folder}"
    )
    _say(f"licence: {weights.licence}")
    if yes:
        return
    if not sys.stdin.isatty():
        raise ValueError("Nobody is there to accept the licence. Add --yes to accept it.")
    if not typer.confirm("Download under this licence?", err=True):
        raise typer.Exit(1)


@contextmanager
def _told() -> Iterator[None]:
    """What goes wrong becomes one line in red."""
    try:
        yield
    except (ValueError, OSError) as error:
        _say(str(error), "red")
        raise typer.Exit(2) from error


def _say(text: str, style: str = "") -> None:
    console.print(text, style=style or None, markup=False, highlight=False, soft_wrap=True)
