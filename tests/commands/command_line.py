"""Runs the `segmed` command in this process and reads its output, for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

from segmed.cli import app
from typer.testing import CliRunner, Result

BOX = ("--box", "10,40,10,40,8,8")


def run(*args: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in args])


def text(result: Result) -> str:
    """The output without the line breaks of the terminal."""
    return " ".join(result.output.split())


def assert_refused(result: Result, folder: Path, sentence: str, before: tuple[str, ...] = ()) -> None:
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert sentence in text(result)
    assert "Traceback" not in result.output
    assert sorted(p.name for p in folder.iterdir()) == sorted(before)
