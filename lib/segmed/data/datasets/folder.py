"""Loads any images and label maps: a folder `images` and a folder `labels` with equal file names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from segmed.data.pairs import files_by_stem, find_folder, is_picture, open_volumes, patient_of, read_json
from segmed.data.slices import LabelledVolume, Skipped, SliceDataset

LAYOUT = (
    "images/<name>.* and labels/<name>.*, and in labels.json the names of the values, such as {'1': 'liver'}."
)


def load_folder(folder: str | os.PathLike[str], patient: str = "") -> SliceDataset:
    """All slices along the last axis. Images without label map are skipped.

    `labels.json` or `dataset.json` names the values, either as {"1": "liver"} or as {"liver": 1}, by itself
    or under "labels". Without it pictures are binary masks and volumes may hold the value 1 only, named
    `object`.

    Args:
        folder: Folder with `images` and `labels`.
        patient: Regular expression whose first group is the patient in a file name; "" makes each file a
            patient.

    Raises:
        FileNotFoundError: There are no images, or a label map has no image.
        ValueError: The names cannot be read, or no pair can be used.
    """
    root = find_folder(Path(folder), holds="images/*", layout=LAYOUT)
    images, labels = files_by_stem(root / "images"), files_by_stem(root / "labels")
    alone = [stem for stem in labels if stem not in images]
    if alone:
        raise FileNotFoundError(
            f"labels/{labels[alone[0]].name} has no images/{alone[0]}.* ({len(alone)} of {len(labels)} have "
            "none). Fetch it, or remove the label map."
        )
    named = next((path for path in (root / "labels.json", root / "dataset.json") if path.is_file()), None)
    classes = _read_names(named) if named else {1: "object"}
    skipped = [
        Skipped(patient_of(stem, patient), image, f"{image.name} has no label map labels/{stem}.*.")
        for stem, image in images.items()
        if stem not in labels
    ]
    volumes = [
        LabelledVolume(patient_of(stem, patient), images[stem], label) for stem, label in labels.items()
    ]
    flat = all(is_picture(path) for volume in volumes for path in volume.files)
    return open_volumes(volumes, classes, "px" if flat else "mm", binary=flat and not named, skipped=skipped)


def _read_names(path: Path) -> dict[int, str]:
    facts: Any = read_json(path)
    facts = facts.get("labels", facts)
    try:
        pairs = [(k, v) if str(k).isdigit() else (v, k) for k, v in facts.items()]
        names = {int(value): str(name) for value, name in pairs if int(value)}
        if not names or not all(0 < value < 256 for value in names):
            raise ValueError("values must be 1 to 255")
    except (AttributeError, ValueError, TypeError) as error:
        raise ValueError(
            f"{path} does not name labels ({error}). Write for instance "
            + '{"labels": {"1": "liver", "2": "spleen"}}.'
        ) from error
    return names
