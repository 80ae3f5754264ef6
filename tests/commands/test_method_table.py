"""The documents repeat the table of methods that the code prints."""

from __future__ import annotations

from pathlib import Path

import pytest
from segmed.cli import app
from segmed.methods import METHODS
from segmed.methods.table import HEAD, method_table
from typer.testing import CliRunner

ROOT = Path(__file__).resolve().parents[2]
START, END = "<!-- methods: output of `segmed info --markdown` -->", "<!-- end of methods -->"


@pytest.mark.parametrize("name", ["README.md", "docs/methods.md"])
def test_documents_hold_the_table_of_the_code(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert text.count(START) == text.count(END) == 1
    held = text.split(START)[1].split(END)[0].strip()
    assert held == method_table(), f"Replace the table in {name} by the output of `segmed info --markdown`."


def test_info_prints_the_table_alone() -> None:
    result = CliRunner().invoke(app, ["info", "--markdown"])
    assert result.exit_code == 0, result.output
    assert result.output.strip() == method_table()


def test_every_method_has_a_row_with_all_cells() -> None:
    rows = [line.strip("| ").split(" | ") for line in method_table().splitlines()]
    assert [row[0] for row in rows[2:]] == [f"`{name}`" for name in METHODS]
    assert {len(row) for row in rows} == {len(HEAD)}
    assert all(cell for row in rows for cell in row)
