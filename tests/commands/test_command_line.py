"""`segmed info`, `serve` and `phantom` check what they are given, and `--help` answers at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import segmed
from command_line import assert_refused, run, text
from PIL import Image
from segmed.methods import METHODS


def test_info_lists_methods_and_keys() -> None:
    result = run("info")
    assert result.exit_code == 0, result.output
    assert segmed.__version__ in result.output
    assert all(name in result.output for name in METHODS)
    assert all(key in result.output for key in ("backbone", "window", "picture_cache_mb"))


def test_info_checks_settings() -> None:
    result = run("info", "--conf", "models=classical")
    assert result.exit_code == 0, result.output
    assert "this server would offer: classical, classical_3d" in text(result)
    for conf, sentence in (("colour=red", "Unknown --conf colour"), ("models=medsam", "needs SAM weights")):
        result = run("info", "--conf", conf)
        assert (result.exit_code, "Traceback" in result.output) == (2, False)
        assert sentence in text(result)


def test_info_explains_a_setting_without_value() -> None:
    result = run("info", "--conf", "models")
    assert result.exit_code == 2
    assert "KEY=VALUE" in text(result)


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (("--conf", "models"), "Settings are given as --conf KEY VALUE"),
        (("--colour", "red"), "Settings are given as --conf KEY VALUE"),
        (("--conf", "models", "vnet"), "There is no method 'vnet'"),
        (("--conf", "batch", "0"), "--conf batch '0' must be a whole number above 0"),
    ],
)
def test_serve_refuses_bad_settings_before_it_starts(args: tuple[str, ...], sentence: str) -> None:
    result = run("serve", *args)
    assert result.exit_code == 2, result.output
    assert sentence in text(result)
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("command", "word"),
    [((), "predict"), (("predict",), "--not-point"), (("info",), "--conf"), (("serve",), "--port")],
)
def test_help(command: tuple[str, ...], word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert word in result.output


def _python(code: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(segmed.__file__).parents[1])}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", env=environment, check=False
    )


def test_help_answers_without_loading_torch() -> None:
    code = (
        "import sys; from segmed.cli import main; sys.argv = ['segmed', '--help']\n"
        "try: main()\nfinally: print(sorted({'torch', 'numpy', 'monailabel'} & set(sys.modules)))"
    )
    done = _python(code)
    assert done.returncode == 0, done.stderr
    assert "predict" in done.stdout
    assert done.stdout.rstrip().endswith("[]")


def test_a_refusal_has_no_traceback_in_a_real_process(tmp_path: Path) -> None:
    words = ["segmed", "predict", "a.png", "-o", str(tmp_path / "a.gif")]
    done = _python(f"import sys; from segmed.cli import main; sys.argv = {words!r}; main()")
    assert done.returncode == 2
    assert "Masks are written as" in done.stderr
    assert "Traceback" not in done.stderr


def test_phantom_writes_a_sheet(tmp_path: Path) -> None:
    result = run("phantom", "--sheet", tmp_path / "a.png", "--seed", 3, "--rows", 1, "--columns", 2)
    assert result.exit_code == 0, result.output
    assert f"wrote {tmp_path / 'a.png'}".replace(" ", "") in result.output.replace("\n", "").replace(" ", "")
    assert np.asarray(Image.open(tmp_path / "a.png")).std() > 0


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("a.gif", (), "A sheet is written as .png, not as 'a.gif'."),
        ("a.png", ("--rows", "0"), "A sheet of 0 rows and 8 columns is empty."),
        ("nowhere/a.png", (), "does not exist. Make it first."),
    ],
)
def test_phantom_refuses(tmp_path: Path, name: str, options: tuple[str, ...], sentence: str) -> None:
    assert_refused(run("phantom", "--sheet", tmp_path / name, *options), tmp_path, sentence)
