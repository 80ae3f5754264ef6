"""`segmed audit`: read the log of who changed what, and check that nobody changed the log."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

app = typer.Typer(help="The log of who changed what: show it, check it.", no_args_is_help=True)

Log = Annotated[
    Path, typer.Argument(help="FILE.audit.jsonl beside the file of users, or that of `serve --audit`.")
]


@app.command()
def verify(log: Log) -> None:
    """Check that no entry was changed, removed, added or moved; files that were full are checked too."""
    with _explained():
        from segmed.server.access.audit import entries

        count, last = 0, ""
        for entry in entries(log):
            count, last = entry["n"], entry["time"]
        Console().print(f"{count} entries, all as they were written, the last one at {last}", highlight=False)


@app.command()
def show(
    log: Log,
    user: Annotated[str, typer.Option(help="Only what this user did.")] = "",
    image: Annotated[
        str, typer.Option(help="Only what was done to this image: its id, not its pseudonym.")
    ] = "",
    last: Annotated[int, typer.Option(help="So many entries.")] = 50,
) -> None:
    """Print the last entries, and check the log at the same time."""
    with _explained():
        from segmed.server.access.audit import Audit, entries

        wanted = Audit(log).pseudonym(image) if image else ""
        kept = deque(
            (e for e in entries(log) if user in ("", e["user"]) and wanted in ("", e["image"])),
            maxlen=max(1, last),
        )
        table = Table("n", "time (UTC)", "user", "role", "what", "image", "model", "status", "outcome")
        for entry in kept:
            known = (
                entry.get(key, "")
                for key in ("n", "time", "user", "role", "action", "image", "model", "status", "outcome")
            )
            table.add_row(*(escape(str(value)) for value in known))
        Console().print(table)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (ValueError, OSError) as error:
        Console(stderr=True).print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error
