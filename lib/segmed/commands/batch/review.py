"""`segmed batch review`: the images of a run that a person should look at, for Next Sample."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from segmed.commands.prediction.options import console, say

_SHOWN = 10  # images in the terminal


def review(
    out: Annotated[Path, typer.Argument(help="Folder of the run, as given by --out.")],
    against: Annotated[
        Path | None, typer.Option(help="Folder of a run of another version over the same images.")
    ] = None,
    by: Annotated[
        str, typer.Option(help="What counts, with commas: uncertainty, disagreement, volume.")
    ] = "uncertainty,disagreement,volume",
    studies: Annotated[
        Path | None, typer.Option(help="Folder of images that a server has as --studies.")
    ] = None,
    state: Annotated[
        Path | None, typer.Option(help="Folder of its state, for a PACS or --conf active_folder.")
    ] = None,
    most: Annotated[int, typer.Option(help="Number of images for Next Sample.")] = 100,
    write: Annotated[Path | None, typer.Option("--csv", help="Table of all images to write.")] = None,
) -> None:
    """Rank the images of a run by uncertainty, disagreement of two versions, and outlying volume.

    With --studies, or --state for a PACS, the first ones are what the strategy `review` of Next Sample
    proposes, in place of those of an earlier review. The server may run meanwhile.

    Example: `segmed batch review liver --against liver-before --studies CTs --most 50`
    """
    from segmed.batch.review import QUANTITIES, queue_of, rank_images, write_ranking

    try:
        wanted = [name.strip() for name in by.split(",") if name.strip()]
        if not wanted or not set(wanted) <= set(QUANTITIES):
            raise ValueError(f"--by {by!r} is not understood. Give one or more of {', '.join(QUANTITIES)}.")
        if most < 1:
            raise ValueError(f"--most is {most}; give at least 1.")
        for folder in (studies, state):
            if folder is not None and not folder.is_dir():
                raise FileNotFoundError(f"There is no folder {folder}. Give the one that the server uses.")
        with console.status("reading") as status:
            ranking = rank_images(
                out, against, wanted, lambda done, total: status.update(f"comparing {done} of {total}")
            )
        for note in ranking.notes:
            say(note, "yellow")
        table = Table("priority", "image", "why")
        for one in ranking.findings[:_SHOWN]:
            table.add_row(f"{one.priority:.3f}", escape(one.image), escape(one.reason))
        Console().print(table)
        if write:
            write_ranking(ranking, write)
            say(f"wrote {len(ranking.findings)} images to {write}")
        if place := state or (studies / ".segmed" if studies else None):
            from segmed.active.store.database import Database
            from segmed.active.store.state import ActiveState

            queue, strangers = queue_of(ranking, studies, most)
            ActiveState(Database(place)).queue_review(queue)
            if strangers:
                say(f"{strangers} images are not in the server's folder and are left out.", "yellow")
            say(f"{len(queue)} images are proposed by the strategy review of Next Sample.")
    except (ValueError, OSError) as error:
        say(str(error), "red")
        raise typer.Exit(2) from error
