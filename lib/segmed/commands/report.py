"""`segmed report`: what active learning has done so far, as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from segmed.commands.models import REGISTRY

console = Console(stderr=True)


def report(
    studies: Annotated[Path, typer.Option(help="Folder of images that the server has as --studies.")],
    registry: Annotated[
        Path | None,
        typer.Option(help="Folder that training keeps its models in; that of the server if not given."),
    ] = None,
    state: Annotated[
        Path | None, typer.Option(help="Folder of the state, if the server has a --conf active_folder.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="HTML file to write.")] = Path("report.html"),
    anonymous: Annotated[
        bool,
        typer.Option(
            "--anonymous", help="Numbers for users and images; pictures stay, with what is on them."
        ),
    ] = False,
    window: Annotated[
        str, typer.Option(help="Intensity window of the pictures, such as auto or ct-lung.")
    ] = "auto",
) -> None:
    """Write model versions, labels and work of each user, agreement, worst cases, drift and quarantine into
    one file.

    Everything is inside of the file, so that it can be sent on. The server may run meanwhile.

    Example: `segmed report --studies ~/cases --out report.html`
    """
    from segmed.active.store.database import Database
    from segmed.active.store.study_files import StudyFiles
    from segmed.registry.versions import Registry
    from segmed.reports.anonymous import anonymised
    from segmed.reports.html import render
    from segmed.reports.report import collect

    try:
        if out.is_dir() or not out.parent.is_dir():
            raise FileNotFoundError(
                f"{out} cannot be written. Give the name of a file in a folder that exists."
            )
        for given in (registry, state):
            if given is not None and not given.is_dir():
                raise FileNotFoundError(f"There is no folder {given}. Give the one that the server uses.")
        files = StudyFiles.read(studies)
        folder = state or studies / ".segmed"
        with console.status("reading"):
            database = Database(folder) if (folder / "active.sqlite3").is_file() else None
            found = collect(database, files, Registry(registry or REGISTRY), window, studies.resolve().name)
        if database is None:
            console.print(
                f"There is no state of active learning in {folder} yet.", style="yellow", markup=False
            )
        with console.status("drawing"):
            page = render(anonymised(found) if anonymous else found)
        out.write_text(page, encoding="utf-8")
    except (ValueError, OSError) as error:
        console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error
    console.print(f"wrote {out}", markup=False, highlight=False, soft_wrap=True)
