"""`segmed report` on studies with a label, on studies without anything, and on what is no folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from segmed.active.store.database import Database
from segmed.active.store.labels import LabelLog
from segmed.cli import app
from typer.testing import CliRunner, Result


def _run(*args: object) -> Result:
    return CliRunner().invoke(app, ["report", *(str(a) for a in args)], env={"COLUMNS": "220"})


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    folder = tmp_path / "studies"
    folder.mkdir()
    return folder


def test_a_report_is_written(tmp_path: Path, studies: Path) -> None:
    LabelLog(Database(studies / ".segmed")).record("case <1>", "李", "c", {"liver": 5})
    registry = tmp_path / "models"
    registry.mkdir()
    out = tmp_path / "loop.html"
    result = _run("--studies", studies, "--registry", registry, "--out", out)
    assert result.exit_code == 0, result.output
    assert "wrote" in result.output
    page = out.read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert "Active learning: studies" in page and "李" in page
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loop.html", "models", "studies"]
    result = _run("--studies", studies, "--registry", registry, "--out", out, "--anonymous")
    assert result.exit_code == 0, result.output
    page = out.read_text(encoding="utf-8")
    assert "李" not in page and "studies<" not in page and "user 1" in page


def test_the_state_may_lie_elsewhere(tmp_path: Path, studies: Path) -> None:
    LabelLog(Database(tmp_path / "state")).record("a", "ann", "c", {"liver": 5})
    (tmp_path / "models").mkdir()
    out = tmp_path / "report.html"
    args = ("--studies", studies, "--registry", tmp_path / "models", "--out", out)
    assert "no state of active learning" in _run(*args).output
    assert "Nobody has submitted a label yet." in out.read_text(encoding="utf-8")
    assert [*studies.iterdir()] == [], "nothing is made by looking"
    assert _run(*args, "--state", tmp_path / "state").exit_code == 0
    assert "ann" in out.read_text(encoding="utf-8")


@pytest.mark.parametrize("wrong", ["--studies", "--registry", "--state", "--out"])
def test_what_is_not_there_is_one_line(tmp_path: Path, studies: Path, wrong: str) -> None:
    (tmp_path / "models").mkdir()
    args = {"--studies": studies, "--registry": tmp_path / "models", "--out": tmp_path / "report.html"}
    args[wrong] = tmp_path / "nowhere" / "x"
    result = _run(*(word for pair in args.items() for word in pair))
    assert result.exit_code == 2
    assert "nowhere" in result.output and "Traceback" not in result.output
    assert not (tmp_path / "report.html").exists()
