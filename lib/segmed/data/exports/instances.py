"""Exports of slices with an outline for each object: COCO and YOLO (segmentation).

Sources: cocodataset.org/#format-data; Ultralytics' documentation of instance segmentation datasets.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage.measure import approximate_polygon, find_contours

import segmed
from segmed.data.exports.cases import TEST, TRAIN, VALIDATION, Export, ExportCase
from segmed.imaging.picture import windowed

_PARTS = (TRAIN, VALIDATION, TEST)
_TOLERANCE = 0.5  # px by which a polygon may leave the outline


@dataclass(frozen=True)
class Instance:
    """A connected part of a structure on a slice.

    Attributes:
        label: Value of the structure.
        mask: Mask (H, W), boolean.
        polygons: Outer outlines (N, 2) as x, y in px; pixel centres are at whole numbers + 0.5.
    """

    label: int
    mask: np.ndarray
    polygons: tuple[np.ndarray, ...]


def instances_of(labels: np.ndarray, min_area: int = 1) -> list[Instance]:
    """The instances on a slice (H, W): parts that touch by sides or corners.

    Args:
        labels: Labels (H, W).
        min_area: Area in px below which a part is left out.
    """
    found = []
    for value in np.unique(labels[labels > 0]):
        parts, count = ndimage.label(labels == value, np.ones((3, 3)))
        for number in range(1, count + 1):
            mask = parts == number
            if mask.sum() >= min_area:
                found.append(Instance(int(value), mask, _polygons(mask)))
    return found


def from_outside(instances: Sequence[Instance]) -> list[Instance]:
    """Sort instances so that those drawn later lie inside the earlier ones, whose holes polygons fill."""
    return sorted(instances, key=lambda one: -int(ndimage.binary_fill_holes(one.mask).sum()))


def export_coco(export: Export, min_area: int = 10) -> None:
    """Write `images/PART/*.png` and `annotations/instances_PART.json` with polygons.

    Slices without objects are written as well. Holes are filled, because COCO's polygons have none; the area
    is that of the mask.

    Args:
        export: The cases and the folder.
        min_area: Area in px below which a part is left out.

    Raises:
        FileExistsError: The folder is not empty.
        ValueError: A case cannot be read.
    """
    folder, classes = export.begin(), export.classes
    categories = [{"id": value, "name": name} for value, name in sorted(classes.items())]
    content: dict[str, dict[str, list[dict[str, Any]]]] = {
        part: {"images": [], "annotations": []} for part in _PARTS
    }
    for case, name, labels in slices_of(export):
        images, annotations = content[case.part]["images"], content[case.part]["annotations"]
        height, width = labels.shape
        images.append(
            {"id": len(images) + 1, "file_name": name, "width": width, "height": height, "case": case.name}
        )
        for one in instances_of(labels, min_area):
            y, x = np.nonzero(one.mask)
            box = [int(x.min()), int(y.min()), int(np.ptp(x)) + 1, int(np.ptp(y)) + 1]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": len(images),
                    "category_id": one.label,
                    "segmentation": [polygon.round(2).ravel().tolist() for polygon in one.polygons],
                    "area": int(one.mask.sum()),
                    "bbox": box,
                    "iscrowd": 0,
                }
            )
    (folder / "annotations").mkdir()
    info = {"description": f"Exported by SegMed {segmed.__version__}"}
    for part, found in content.items():
        text = json.dumps({"info": info, **found, "categories": categories})
        (folder / "annotations" / f"instances_{part}.json").write_text(text, encoding="utf-8")


def export_yolo_instances(export: Export, min_area: int = 10) -> None:
    """Write `images/PART/*.png`, `labels/PART/*.txt` with polygons in shares of the picture, and `data.yaml`.

    Arguments and errors as in `export_coco`.
    """
    folder, classes = export.begin(), export.classes
    numbers = {value: n for n, value in enumerate(sorted(classes))}
    for case, name, labels in slices_of(export):
        height, width = labels.shape
        lines = [
            " ".join([str(numbers[one.label]), *(f"{v:.6f}" for v in (polygon / (width, height)).ravel())])
            for one in instances_of(labels, min_area)
            for polygon in one.polygons
        ]
        text = folder / "labels" / case.part / f"{Path(name).stem}.txt"
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    # JSON is YAML, and quotes names as they have to be
    parts = {part: f"images/{part}" for part in _PARTS if (folder / "images" / part).is_dir()}
    names = {n: classes[value] for value, n in numbers.items()}
    content = {"path": str(folder.resolve()), **parts, "names": names}
    yaml = "".join(f"{key}: {json.dumps(value)}\n" for key, value in content.items())
    (folder / "data.yaml").write_text(yaml, encoding="utf-8")


def slices_of(export: Export) -> Iterator[tuple[ExportCase, str, np.ndarray]]:
    """Write each slice as `images/PART/CASE_KKKK.png`, and give case, name and labels (H, W)."""
    for case, image, labels in export.read():
        picture = windowed(image, case.volume.window)
        for k in range(image.shape[2]):
            name = f"{case.name}_{k:04d}.png"
            path = export.folder / "images" / case.part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.ascontiguousarray(picture.slice(k))).convert("RGB").save(path)
            yield case, name, labels[:, :, k].T


def _polygons(mask: np.ndarray) -> tuple[np.ndarray, ...]:
    """Outlines of a connected mask without its holes, in COCO's coordinates: a pixel covers x to x + 1."""
    filled = np.pad(ndimage.binary_fill_holes(mask), 1).astype(np.float32)
    found = []
    for outline in find_contours(filled, 0.5, fully_connected="high"):
        simple = approximate_polygon(outline, _TOLERANCE)
        if len(simple) < 4:  # closed, the first point is the last
            simple = outline
        found.append(simple[:-1, ::-1] - 1 + 0.5)
    return tuple(found)
