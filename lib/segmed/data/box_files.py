"""Boxes from files of other programs: text files of YOLO and JSON of COCO."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Corners = tuple[float, float, float, float]
_LEAST_OF_POLYGON = 6  # numbers of a triangle


def read_boxes(file: Path, picture: str, size: tuple[int, int]) -> list[Corners]:
    """Read the boxes of a picture, in the order of the file.

    A `.txt` file of YOLO has a line `class cx cy w h`, optionally with a score, per box, in shares of the
    picture, or the polygon of an object, `class x1 y1 x2 y2 x3 y3 …`, whose bounds are its box. A `.json`
    file of COCO is a dataset, whose `images` name the pictures, or a list of detections, whose `image_id` is
    the name of a picture without its ending, as a number or not, or with it.

    Args:
        file: The file.
        picture: Name of the picture's file.
        size: Rows and columns (H, W) of the picture.

    Returns:
        Boxes x0, y0, x1, y1 in px, ends inclusive, clipped to the picture.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is in neither format, or has no box of this picture.
    """
    if not file.is_file():
        raise FileNotFoundError(f"There is no file {file} of boxes.")
    text = file.read_text(encoding="utf-8", errors="replace")
    kind = file.suffix.lower()
    if kind not in (".txt", ".json"):
        raise ValueError(f"{file.name} is neither .txt of YOLO nor .json of COCO. Convert it to one of them.")
    try:
        found = _of_yolo(text, size) if kind == ".txt" else _of_coco(json.loads(text), picture)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        expected = "lines `class cx cy w h` in shares" if kind == ".txt" else "`images` and `annotations`"
        raise ValueError(
            f"{file.name} is not understood ({error!s:.100}). Expected are {expected}, as "
            f"{'YOLO' if kind == '.txt' else 'COCO'} has them."
        ) from error
    boxes = [clipped for box in found if (clipped := _clipped(box, size)) is not None]
    if not boxes:
        raise ValueError(f"{file.name} has no box on {picture}. Give the file of boxes of this picture.")
    return boxes


def _of_yolo(text: str, size: tuple[int, int]) -> list[Corners]:
    """Left, top, right and bottom edge of each box in px."""
    boxes = []
    for line in filter(None, map(str.strip, text.splitlines())):
        numbers = [float(part) for part in line.split()][1:]
        is_polygon = len(numbers) >= _LEAST_OF_POLYGON
        if len(numbers) not in (4, 5) and not is_polygon:
            raise ValueError(f"{line!r:.60} is neither a box nor a polygon")
        shares = numbers[: len(numbers) // 2 * 2] if is_polygon else numbers[:4]  # without the score
        if not all(0 <= value <= 1 for value in shares):
            raise ValueError(f"{line!r:.60} has values outside of 0 to 1")
        if is_polygon:
            left, right = min(shares[::2]), max(shares[::2])
            top, bottom = min(shares[1::2]), max(shares[1::2])
        else:
            x, y, width, height = shares
            left, right, top, bottom = x - width / 2, x + width / 2, y - height / 2, y + height / 2
        rows, columns = size
        boxes.append((left * columns, top * rows, right * columns, bottom * rows))
    return boxes


def _of_coco(content: Any, picture: str) -> list[Corners]:
    """Left, top, right and bottom edge of each box in px."""
    stem = Path(picture).stem
    names = {picture, stem, *([str(int(stem))] if stem.isdecimal() else [])}
    if isinstance(content, dict):
        images = {image["id"] for image in content["images"] if Path(image["file_name"]).name in names}
        rows: Sequence[Any] = [row for row in content["annotations"] if row["image_id"] in images]
    else:
        rows = [row for row in content if str(row["image_id"]) in names]
    boxes = []
    for row in rows:
        left, top, width, height = (float(value) for value in row["bbox"])
        boxes.append((left, top, left + width, top + height))
    return boxes


def _clipped(box: Corners, size: tuple[int, int]) -> Corners | None:
    """The first and last column and row whose centres lie in a box, or None if there is none."""
    left, top, right, bottom = box
    if not all(math.isfinite(value) for value in box):
        return None
    x0, y0 = max(math.ceil(left - 0.5), 0), max(math.ceil(top - 0.5), 0)
    x1, y1 = min(math.ceil(right - 0.5), size[1]) - 1, min(math.ceil(bottom - 0.5), size[0]) - 1
    return (float(x0), float(y0), float(x1), float(y1)) if x0 <= x1 and y0 <= y1 else None
