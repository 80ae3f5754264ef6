"""`segmed users`: who may log in to a server, with which role, and their access tokens."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:  # imported late, so that --help answers at once
    from segmed.server.access.users import Users

app = typer.Typer(help="Users of a server: add, list, remove, roles, access tokens.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Of the user: letters, digits and . @ - _")]
UsersFile = Annotated[Path, typer.Option("--users", help="File that holds them.", envvar="SEGMED_USERS")]
Role = Annotated[
    str, typer.Option(help="reader, annotator, reviewer or admin; each may do what those before it may.")
]


@app.command()
def add(
    name: Name,
    users: UsersFile,
    role: Role = "annotator",
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read it from standard input.")
    ] = False,
    no_password: Annotated[
        bool, typer.Option("--no-password", help="For programs, which use access tokens.")
    ] = False,
) -> None:
    """Add a user, or give one a new password and role; the password is asked for."""
    with _opened(users) as file:
        password = ""
        if password_stdin:
            password = sys.stdin.readline().rstrip("\n")
        elif not no_password:
            password = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
        if not password and not no_password:
            raise ValueError("There is no password. Give one, or --no-password for a program.")
        file.add(name, role, password)
        _say(f"{name} may log in as {role}.")


@app.command("list")
def list_users(users: UsersFile) -> None:
    """Show users, roles and how many access tokens they have."""
    with _opened(users) as file:
        table = Table("user", "role", "password", "access tokens made")
        for user in file.all().values():
            table.add_row(
                user.name, user.role, "yes" if user.password else "no", ", ".join(user.made.values())
            )
        if not table.row_count:
            raise ValueError(f"{users} has no users. Add one by `segmed users add NAME`.")
        Console().print(table)


@app.command()
def remove(name: Name, users: UsersFile) -> None:
    """Remove a user; their sessions and tokens end at once."""
    with _opened(users) as file:
        file.remove(name)
        _say(f"{name} may not log in any more.")


@app.command()
def role(name: Name, new: Annotated[str, typer.Argument(metavar="ROLE")], users: UsersFile) -> None:
    """Change the role of a user, from the next request on."""
    with _opened(users) as file:
        file.set_role(name, new)
        _say(f"{name} is {new} now.")


@app.command()
def token(
    name: Name,
    users: UsersFile,
    drop: Annotated[
        bool, typer.Option("--drop", help="Make all tokens of the user invalid instead.")
    ] = False,
) -> None:
    """Make an access token for programs and print it; it is shown this once."""
    with _opened(users) as file:
        if drop:
            file.drop_tokens(name)
            _say(f"The access tokens of {name} are invalid now.")
            return
        print(file.make_token(name))


@contextmanager
def _opened(path: Path) -> Iterator[Users]:
    """The file of users; errors of the user end the command with a sentence."""
    from segmed.server.access.users import Users

    try:
        yield Users(path)
    except (ValueError, OSError) as error:
        Console(stderr=True).print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error


def _say(text: str) -> None:
    Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)
