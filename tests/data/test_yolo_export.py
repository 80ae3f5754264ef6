"""The layout of YOLO trainers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from segmed.data.split import Split
from segmed.data.yolo_export import export_yolo
from segmed.imaging.labels.maps import boxes_of_pieces
from small_training import make_discs
from typer.testing import CliRunner


def test_boxes_are_those_of_the_labels(tmp_path: Path) -> None:
    data = make_discs(tmp_path / "discs", 3)
    split = Split(("v0",), ("v1",), ("v2",), 0)
    counts = export_yolo(data, split, tmp_path / "out", min_area=5)
    assert counts == {"train": 6, "val": 6, "test": 6}  # two discs on three of four slices
    pictures = sorted((tmp_path / "out/images/train").iterdir())
    texts = sorted((tmp_path / "out/labels/train").iterdir())
    assert [p.stem for p in pictures] == [t.stem for t in texts] and len(pictures) == 4
    assert texts[0].read_text(encoding="utf-8") == ""  # background
    mine = data.of(["v0"])
    sample = mine[2]
    image = np.asarray(Image.open(pictures[2]))
    assert image.shape == (*sample.image.shape, 3) and np.array_equal(image[:, :, 1], sample.image)
    rows = np.array([line.split() for line in texts[2].read_text(encoding="utf-8").splitlines()], float)
    height, width = sample.labels.shape
    low = (rows[:, 1:3] - rows[:, 3:] / 2) * (width, height)
    high = (rows[:, 1:3] + rows[:, 3:] / 2) * (width, height)
    corners, kinds = boxes_of_pieces(sample.labels, 5)
    assert np.allclose(np.hstack([low, high]), corners, atol=1e-3)
    assert (rows[:, 0] + 1 == kinds).all()
    lines = dict(
        line.split(": ", 1) for line in (tmp_path / "out/data.yaml").read_text(encoding="utf-8").splitlines()
    )
    assert json.loads(lines["names"]) == {"0": "bright", "1": "dark"}
    assert json.loads(lines["val"]) == "images/val"


def test_nothing_is_written_over(tmp_path: Path) -> None:
    data = make_discs(tmp_path / "discs", 3)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(FileExistsError, match="not empty"):
        export_yolo(data, Split(("v0",), ("v1",), ("v2",), 0), tmp_path / "out")


def test_command(tmp_path: Path) -> None:
    from segmed.cli import app

    make_discs(tmp_path / "discs", 5)
    result = CliRunner().invoke(
        app, ["data", "yolo", "msd", str(tmp_path / "discs"), "--out", str(tmp_path / "out")]
    )
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "out/images").rglob("*.png"))) == 20
