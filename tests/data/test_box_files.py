"""Boxes from files of other programs, clipped to the picture, and files that hold none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from segmed.cli import app
from segmed.data.box_files import read_boxes
from typer.testing import CliRunner

SIZE = (40, 80)  # rows, columns
TWO = [(10.0, 5.0, 29.0, 24.0), (60.0, 30.0, 79.0, 39.0)]
DATASET: dict[str, Any] = {
    "images": [{"id": 3, "file_name": "train/ann.png"}, {"id": 4, "file_name": "ben.png"}],
    "annotations": [
        {"image_id": 3, "bbox": [10, 5, 20, 20], "category_id": 1},
        {"image_id": 4, "bbox": [0, 0, 5, 5]},
        {"image_id": 3, "bbox": [60, 30, 30, 15]},
    ],
}
FOUND = [
    {"image_id": "ann", "bbox": [10, 5, 20, 20], "score": 0.9},
    {"image_id": "ann", "bbox": [60, 30, 20, 10]},
]


# the same boxes as outlines, of which the second has a score
POLYGONS = "0 0.125 0.125 0.375 0.125 0.375 0.625 0.125 0.625\n1 0.75 0.75 1 0.75 1 1 0.75 1 0.75 0.8 0.8\n"


def _written(folder: Path, name: str, content: object) -> Path:
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder / name


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "0 0.25 0.375 0.25 0.5\n\n1 0.9375 0.9375 0.375 0.375 0.8\n"),
        ("a.txt", POLYGONS),
        ("a.json", DATASET),
        ("a.json", FOUND),
    ],
)
def test_boxes_are_read(name: str, content: object, tmp_path: Path) -> None:
    assert read_boxes(_written(tmp_path, name, content), "ann.png", SIZE) == TWO


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "0 10 5 20 20", "not understood .*outside of 0 to 1.*shares"),
        ("a.txt", "0 0.5", "not understood"),
        ("a.txt", "0 0.1 0.1 1.5 0.1 0.2 0.4", "not understood .*outside of 0 to 1"),
        ("a.txt", "", "no box on ann.png"),
        ("a.txt", "0 0.5 0.5 0 0", "no box on ann.png"),
        ("a.json", {"boxes": []}, "not understood .*`images` and `annotations`"),
        ("a.json", "{", "not understood"),
        ("a.json", [{"image_id": "eve", "bbox": [1, 1, 2, 2]}], "no box on ann.png"),
        ("a.csv", "1", "neither .txt of YOLO nor .json of COCO"),
    ],
)
def test_other_files_are_refused(name: str, content: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read_boxes(_written(tmp_path, name, content), "ann.png", SIZE)
    with pytest.raises(FileNotFoundError):
        read_boxes(tmp_path / "none.txt", "ann.png", SIZE)


def test_a_picture_is_segmented_by_boxes_of_a_file(tmp_path: Path) -> None:
    picture = np.full(SIZE, 20, np.uint8)
    picture[8:22, 13:27], picture[33:38, 64:76] = 220, 220
    Image.fromarray(picture).save(tmp_path / "ann.png")
    words = ["predict", tmp_path / "ann.png", "--boxes", _written(tmp_path, "a.json", DATASET)]
    words += ["--model", "classical", "-o", tmp_path / "mask.png", "--device", "cpu"]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    mask = np.asarray(Image.open(tmp_path / "mask.png"))
    nothing, first, second = np.unique(mask)  # spread over the greys, so that they can be seen
    assert nothing == 0
    assert (mask[10:20, 15:25] == first).mean() > 0.9
    assert (mask[34:37, 66:74] == second).mean() > 0.9
