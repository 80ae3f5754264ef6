"""The finished images of a run with their masks, also as a dataset for exports."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segmed.batch.manifest import open_to_read
from segmed.batch.outputs import MASKS
from segmed.batch.report import manifests
from segmed.data.pairs import is_picture, open_volumes, patient_of
from segmed.data.slices import LabelledVolume, Skipped, SliceDataset


@dataclass
class FinishedItem:
    """What the manifest knows of a finished image.

    Attributes:
        name: Name of its outputs without extension.
        place: Where the image is, JSON values.
        digest: SHA-256 of the image.
        mask: File of its label map.
        version: Version of the model.
        rows: Measurements by name of the structure.
    """

    name: str
    place: Mapping[str, Any]
    digest: str
    mask: Path
    version: str
    rows: dict[str, Mapping[str, Any]] = field(default_factory=dict)


def finished_items(folder: Path) -> dict[str, FinishedItem]:
    """The finished images of a run by their keys, also while it goes on.

    Raises:
        FileNotFoundError: There is no run.
        ValueError: A manifest is damaged.
    """
    items: dict[str, FinishedItem] = {}
    finished = "state = 'done' OR phase = 'send'"
    for path in manifests(folder):
        with closing(open_to_read(path)) as sql:
            extension = json.loads(sql.execute("SELECT settings FROM run").fetchone()["settings"])[
                "extension"
            ]
            for row in sql.execute(
                f"SELECT key, name, source, image, model_version FROM items WHERE {finished} ORDER BY id"
            ):
                mask = folder / MASKS / f"{row['name']}{extension}"
                items[row["key"]] = FinishedItem(
                    row["name"], json.loads(row["source"]), row["image"], mask, row["model_version"]
                )
            for row in sql.execute(
                f"SELECT key, facts FROM measurements JOIN items ON items.id = item WHERE {finished}"
            ):
                facts = json.loads(row["facts"])
                items[row["key"]].rows[facts["name"]] = facts
    return items


def run_dataset(folder: Path, labels: str = "", patient: str = "") -> SliceDataset:
    """The images of a run with the masks that the model gave.

    Args:
        folder: Folder of the run.
        labels: Names of structures with commas in the order of their values, "" for all.
        patient: Regular expression whose first group is the patient in an image's name, "" for one per image.

    Raises:
        FileNotFoundError: There is no run.
        ValueError: No image can be used; those of a PACS are not kept.
    """
    items = finished_items(folder)
    wanted = [name.strip() for name in labels.split(",") if name.strip()]
    found = wanted or list(dict.fromkeys(name for item in items.values() for name in item.rows))
    numbers = {name: n for n, name in enumerate(found, 1)}
    volumes, skipped = [], []
    for item in items.values():
        who = patient_of(item.name, patient) if patient else item.name
        place = item.place.get("file") or item.place.get("folder")
        if place is None:
            reason = "The run has not kept its images. Export the final labels of the PACS, or a folder."
            skipped.append(Skipped(who, item.mask, reason))
            continue
        values = {int(row["label"]): numbers.get(name, 0) for name, row in item.rows.items()}
        volumes.append(LabelledVolume(who, Path(place), item.mask, values=values, image_id=item.name))
    if not volumes:
        raise ValueError(f"No image of {folder} can be exported: none is done, or they are in a PACS.")
    flat = all(is_picture(volume.image) for volume in volumes)
    classes = {n: name for name, n in numbers.items()}
    return open_volumes(volumes, classes, "px" if flat else "mm", skipped=skipped)
