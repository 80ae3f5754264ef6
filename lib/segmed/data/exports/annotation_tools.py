"""Slices with polygons for Label Studio and CVAT, and what annotators made of them.

Sources: labelstud.io/guide/task_format; "CVAT for images 1.1" in CVAT's documentation. Both count from the
corner of the first pixel. `segmed.json` beside the pictures notes the image of each case, so that corrected
polygons find the way back.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from skimage.draw import polygon2mask

import segmed
from segmed.data.exports.cases import Export
from segmed.data.exports.instances import from_outside, instances_of, slices_of
from segmed.imaging.grid import read_grid
from segmed.imaging.labels.writing import name_values, write_labels

NOTE = "segmed.json"
LABEL_STUDIO, CVAT = "tasks.json", "annotations.xml"
_LARGEST = 512 * 2**20  # bytes of a file of annotations
_CONTROL = {"from_name": "label", "to_name": "image", "type": "polygonlabels"}
_CONFIG = (
    '<View><Image name="image" value="$image"/>'
    '<PolygonLabels name="label" toName="image">{}</PolygonLabels></View>'
)

Polygons = dict[str, list[tuple[str, np.ndarray]]]


def export_label_studio(export: Export) -> None:
    """Write `images/PART/*.png`, `tasks.json` with labels as predictions, and `labels.xml`, the interface.

    Serve the pictures as local files with the folder as root, and import the tasks.

    Args:
        export: The cases and the folder.

    Raises:
        FileExistsError: The folder is not empty.
        ValueError: A case cannot be read.
    """
    folder, classes = export.begin(), export.classes
    tasks = []
    for case, name, labels in slices_of(export):
        height, width = labels.shape
        results = [
            {
                **_CONTROL,
                "id": f"{number}-{part}",
                "original_width": width,
                "original_height": height,
                "value": {
                    "points": (polygon / (width, height) * 100).round(4).tolist(),
                    "polygonlabels": [classes[one.label]],
                },
            }
            for number, one in enumerate(from_outside(instances_of(labels)))
            for part, polygon in enumerate(one.polygons)
        ]
        image = f"/data/local-files/?d=images/{case.part}/{name}"
        prediction = {"model_version": f"SegMed {segmed.__version__}", "result": results}
        facts = {"image": image, "name": name, "case": case.name}
        tasks.append({"data": facts, "predictions": [prediction] if results else []})
    (folder / LABEL_STUDIO).write_text(json.dumps(tasks), encoding="utf-8")
    options = "".join(ET.tostring(ET.Element("Label", value=n), encoding="unicode") for n in classes.values())
    (folder / "labels.xml").write_text(_CONFIG.format(options) + "\n", encoding="utf-8")
    _note(export)


def export_cvat(export: Export) -> None:
    """Write `images/PART/*.png` and `annotations.xml`, which CVAT takes as "CVAT 1.1".

    Arguments and errors as in `export_label_studio`.
    """
    folder, classes = export.begin(), export.classes
    root = ET.Element("annotations")
    ET.SubElement(root, "version").text = "1.1"
    for number, (_, name, labels) in enumerate(slices_of(export)):
        height, width = labels.shape
        image = ET.SubElement(root, "image", id=str(number), name=name, width=str(width), height=str(height))
        for depth, one in enumerate(from_outside(instances_of(labels))):
            for polygon in one.polygons:
                points = ";".join(f"{x:.2f},{y:.2f}" for x, y in polygon)
                facts = {"label": classes[one.label], "source": "auto", "occluded": "0", "points": points}
                ET.SubElement(image, "polygon", {**facts, "z_order": str(depth)})
    ET.ElementTree(root).write(folder / CVAT, encoding="utf-8", xml_declaration=True)
    _note(export)


def import_annotations(file: Path, exported: Path, out: Path) -> tuple[int, list[str]]:
    """Label maps from polygons and boxes of Label Studio (JSON) or CVAT (XML).

    Args:
        file: The file that the tool exported.
        exported: Folder of the export that was annotated, for the images of its cases.
        out: Folder for the label maps, `CASE.nii.gz` on the grid of the image, with a table of names.

    Returns:
        Number of label maps, and sentences on what was left out. Cases without annotation get no label map.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is of another form.
    """
    try:
        note = json.loads((exported / NOTE).read_text(encoding="utf-8"))
        images, values = dict(note["cases"]), {str(n): int(v) for v, n in note["labels"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{exported / NOTE} is not the note of an export by SegMed.") from error
    if file.stat().st_size > _LARGEST:
        raise ValueError(f"{file.name} is larger than {_LARGEST // 2**20} MiB. Export it in parts.")
    read = _from_cvat if file.suffix.lower() == ".xml" else _from_label_studio
    try:
        polygons, notes = read(file)
    except (KeyError, TypeError, ValueError, AttributeError, ET.ParseError) as error:
        raise ValueError(
            f"{file.name} is not what Label Studio (JSON) or CVAT (CVAT for images 1.1) exports: "
            f"{type(error).__name__} {error!s:.100}."
        ) from error
    slices: dict[str, dict[int, list[tuple[str, np.ndarray]]]] = defaultdict(dict)
    for name, found in polygons.items():
        case, _, number = Path(name).stem.rpartition("_")
        if case not in images or not number.isdecimal():
            notes.append(f"{name} is no picture of the export and is left out.")
            continue
        slices[case][int(number)] = found
        for label, _ in found:
            values.setdefault(label, max(values.values(), default=0) + 1)
    out.mkdir(parents=True, exist_ok=True)
    names = {value: name for name, value in values.items()}
    for case, drawn in slices.items():
        image = Path(images[case])
        grid = read_grid(image)
        labels = np.zeros(grid.shape, np.uint8)
        for k, found in drawn.items():
            if not 0 <= k < grid.shape[2]:
                notes.append(f"{case} has no slice {k}.")
                continue
            for label, polygon in found:
                # pixel centres lie half a pixel from the corner that the tools count from
                labels[:, :, k][polygon2mask(grid.shape[:2], polygon - 0.5)] = values[label]
        affine = np.eye(4) if grid.affine is None else grid.affine
        like = None if image.is_dir() else image
        write_labels(name_values(labels, names), affine, out / f"{case}.nii.gz", like=like)
    return len(slices), notes


def _note(export: Export) -> None:
    images = {case.name: str(case.volume.image.absolute()) for case in export.cases}
    text = json.dumps({"cases": images, "labels": dict(export.classes)}, indent=1)
    (export.folder / NOTE).write_text(text + "\n", encoding="utf-8")


def _from_label_studio(file: Path) -> tuple[Polygons, list[str]]:
    found: Polygons = {}
    left = 0
    for task in json.loads(file.read_text(encoding="utf-8")):
        annotations = [a for a in task.get("annotations", ()) if not a.get("was_cancelled")]
        if not annotations:
            continue
        drawn: list[tuple[str, np.ndarray]] = []
        for result in annotations[-1]["result"]:  # the last one counts
            value, kind = result["value"], result.get("type")
            if kind not in ("polygonlabels", "rectanglelabels"):
                left += 1
                continue
            size = np.array([result["original_width"], result["original_height"]]) / 100
            if kind == "polygonlabels":
                points = np.array(value["points"], float).reshape(-1, 2)
            else:
                points = _rectangle(value["x"], value["y"], value["width"], value["height"])
            drawn.append((str(value[kind][0]), points * size))
        found[str(task["data"].get("name") or task["data"]["image"])] = drawn
    notes = [f"{left} regions are neither polygons nor boxes and are left out."] if left else []
    return found, notes


def _from_cvat(file: Path) -> tuple[Polygons, list[str]]:
    text = file.read_text(encoding="utf-8")
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ValueError("it declares entities, which CVAT does not")
    found: Polygons = {}
    left = 0
    for image in ET.fromstring(text).iter("image"):
        drawn: list[tuple[str, np.ndarray]] = []
        for shape in sorted(image, key=lambda shape: int(shape.get("z_order") or 0)):
            if shape.tag == "polygon":
                pairs = [pair.split(",") for pair in shape.attrib["points"].split(";")]
                drawn.append((shape.attrib["label"], np.array(pairs, float)))
            elif shape.tag == "box":
                x0, y0, x1, y1 = (float(shape.attrib[name]) for name in ("xtl", "ytl", "xbr", "ybr"))
                drawn.append((shape.attrib["label"], _rectangle(x0, y0, x1 - x0, y1 - y0)))
            else:
                left += 1
        if drawn:
            found[image.attrib["name"]] = drawn
    notes = [f"{left} shapes are neither polygons nor boxes and are left out."] if left else []
    return found, notes


def _rectangle(x: Any, y: Any, width: Any, height: Any) -> np.ndarray:
    x, y, width, height = (float(v) for v in (x, y, width, height))
    return np.array([(x, y), (x + width, y), (x + width, y + height), (x, y + height)])
