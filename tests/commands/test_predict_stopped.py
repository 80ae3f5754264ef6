"""`segmed predict` that its user stops with Ctrl+C."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from segmed.cli import app
from segmed.commands.prediction.following import Following
from segmed.imaging.reading import read_volume
from typer.testing import CliRunner

FOUND = 3  # slices after which the user presses Ctrl+C


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Presses Ctrl+C as soon as masks of some slices were found."""
    run = Following.run

    def stopped(self: Following, name: str, predict, partial):  # type: ignore[no-untyped-def]
        def interrupted(advance):  # type: ignore[no-untyped-def]
            masks: dict[int, np.ndarray] = {}

            def press(done: int, most: int, found: Mapping[int, np.ndarray]) -> None:
                advance(done, most, found)
                masks.update(found)
                if len(masks) == FOUND:
                    raise KeyboardInterrupt

            return predict(press)

        return run(self, name, interrupted, partial)

    monkeypatch.setattr(Following, "run", stopped)


def _predict(image: Path, out: Path, *words: str) -> tuple[int, str]:
    asked = ["--model", "classical_3d", "--box", "20,60,20,60,4,12", "-o", str(out), *words]
    done = CliRunner().invoke(app, ["predict", str(image), *asked])
    return done.exit_code, " ".join(done.output.split())


@pytest.mark.usefixtures("impatient")
def test_what_was_found_is_written_only_if_that_is_wanted(phantom_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.nii.gz"
    code, said = _predict(phantom_file, out)
    assert code == 130
    assert "nothing was written" in said
    assert not out.exists()
    code, said = _predict(phantom_file, out, "--keep-partial")
    assert code == 0, said
    assert f"found on {FOUND} slices is kept" in said
    assert np.count_nonzero(read_volume(out).array.any(axis=(0, 1))) == FOUND
