"""Boxes for many images from one file: CSV, JSON, or COCO."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from segmed.imaging.reading import extension_of

_OBJECT = "object"  # name of what has none
_FORM = (
    "Give a CSV with the columns image,label,i0,i1,j0,j1,k0,k1 (label and k are optional), JSON such as "
    '{"ct.nii.gz": [{"label": "liver", "roi": [40, 120, 60, 140, 30, 30]}]}, or COCO.'
)
_MOST_LABELS = 255


@dataclass(frozen=True)
class PromptBox:
    """A box around an object.

    Attributes:
        label: Name of the structure.
        roi: Ends (i0, i1, j0, j1, k0, k1) in voxels, inclusive; without k on images of one slice.
    """

    label: str
    roi: tuple[float, ...]


@dataclass(frozen=True)
class PromptFile:
    """The boxes of a file.

    Attributes:
        boxes: Boxes by the name of the image as the file has it.
        values: Value in the label map by name of the structure, the same for all images.
    """

    boxes: Mapping[str, tuple[PromptBox, ...]]
    values: Mapping[str, int] = field(default_factory=dict)

    def of(self, key: str) -> tuple[PromptBox, ...]:
        """Boxes of an item: by its key, else without extension, else by the name of the file alone."""
        for name in _names(key):
            if name in self.boxes:
                return self.boxes[name]
        return ()

    def strangers(self, keys: Iterable[str]) -> list[str]:
        """Images in the file that none of the items is."""
        known = {name for key in keys for name in _names(key)}
        return sorted(self.boxes.keys() - known)


def read_prompts(file: Path) -> PromptFile:
    """Read a file of boxes.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is of another form; the message names the place.
    """
    if not file.is_file():
        raise FileNotFoundError(f"There is no file {file}. {_FORM}")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file.name} is not in UTF-8. {_FORM}") from error
    if file.suffix.lower() == ".csv":
        found = _from_csv(text, file.name)
    else:
        try:
            data = json.loads(text)
        except ValueError as error:
            raise ValueError(f"{file.name} is not JSON: {error}. {_FORM}") from error
        if not isinstance(data, dict):
            raise ValueError(f"{file.name} holds no object. {_FORM}")
        found = _from_coco(data, file.name) if "annotations" in data else _from_json(data, file.name)
    labels = sorted({box.label for boxes in found.values() for box in boxes})
    if not labels:
        raise ValueError(f"{file.name} holds no box. {_FORM}")
    if len(labels) > _MOST_LABELS:
        raise ValueError(
            f"{file.name} names {len(labels)} structures; a label map holds {_MOST_LABELS}. Split the file."
        )
    return PromptFile(
        {image: tuple(boxes) for image, boxes in found.items()}, {n: v for v, n in enumerate(labels, 1)}
    )


def _names(key: str) -> list[str]:
    """Names that a file of boxes may have for an item."""
    path = PurePosixPath(key)
    found = [key, path.name]
    if extension := extension_of(path.name):
        found = [key, key[: -len(extension)], path.name, path.name[: -len(extension)]]
    return found


def _from_csv(text: str, name: str) -> dict[str, list[PromptBox]]:
    found: dict[str, list[PromptBox]] = defaultdict(list)
    rows = csv.DictReader(text.splitlines())
    if not {"image", "i0", "i1", "j0", "j1"} <= set(rows.fieldnames or ()):
        raise ValueError(f"{name} lacks columns. {_FORM}")
    for number, row in enumerate(rows, 2):
        ends = [row.get(column) or "" for column in ("i0", "i1", "j0", "j1", "k0", "k1")]
        ends = ends if any(ends[4:]) else ends[:4]
        found[(row["image"] or "").strip()].append(_box(row.get("label"), ends, f"{name}, line {number}"))
    return found


def _from_json(data: Mapping[str, Any], name: str) -> dict[str, list[PromptBox]]:
    found: dict[str, list[PromptBox]] = {}
    for image, boxes in data.items():
        if not isinstance(boxes, list):
            raise ValueError(f"{name}, {image[:80]!r}: a list of boxes is expected. {_FORM}")
        where = f"{name}, {image[:80]!r}"
        found[image] = [
            _box(box.get("label"), box.get("roi"), where) if isinstance(box, dict) else _box("", box, where)
            for box in boxes
        ]
    return found


def _from_coco(data: Mapping[str, Any], name: str) -> dict[str, list[PromptBox]]:
    """COCO counts from the corner of the first pixel; its box [x, y, w, h] covers pixels x to x + w - 1."""
    found: dict[str, list[PromptBox]] = defaultdict(list)
    try:
        images = {one["id"]: str(one["file_name"]) for one in data["images"]}
        names = {one["id"]: str(one["name"]) for one in data.get("categories", ())}
        for one in data["annotations"]:
            x, y, width, height = (float(v) for v in one["bbox"])
            roi = [x, x + max(width - 1, 1), y, y + max(height - 1, 1)]
            label = names.get(one.get("category_id"), _OBJECT)
            found[images[one["image_id"]]].append(_box(label, roi, f"{name}, annotation {one.get('id')}"))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{name} is not COCO: {type(error).__name__} {error!s:.80}. {_FORM}") from error
    return found


def _box(label: Any, ends: Any, where: str) -> PromptBox:
    try:
        roi = tuple(float(end) for end in ends)
    except (TypeError, ValueError):
        roi = ()
    if len(roi) not in (4, 6) or not all(abs(end) < 1e9 for end in roi):
        raise ValueError(f"{where}: a box is 4 or 6 numbers, not {ends!r:.80}. {_FORM}")
    return PromptBox(" ".join(str(label or "").split()) or _OBJECT, roi)
