"""Tasks of the Medical Segmentation Decathlon: NIfTI volumes listed in a `dataset.json`.

Source: Antonelli et al., The Medical Segmentation Decathlon (Nature Communications, 2022).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segmed.data.pairs import open_volumes, read_json
from segmed.data.slices import LabelledVolume, SliceDataset
from segmed.imaging.reading import extension_of

LAYOUT = "the folder of one task, with dataset.json, imagesTr/<case>.nii.gz and labelsTr/<case>.nii.gz."


def load_msd(folder: str | os.PathLike[str], modality: str | Sequence[str] = "") -> SliceDataset:
    """All slices, along the last stored axis, of the training volumes of a task; each volume is a patient.

    Of multi-modal tasks, whose images have a fourth axis, three images are shown as colours, or one as grey.

    Args:
        folder: Folder of the task, with `dataset.json`, `imagesTr` and `labelsTr`.
        modality: One name of `modality` in `dataset.json`, or three; the first three where there are as many,
            else the first.

    Raises:
        FileNotFoundError: There is no `dataset.json`, or a file that it lists is missing.
        ValueError: `dataset.json` cannot be read, the modality is unknown, or no volume can be used.
    """
    root = Path(folder)
    facts = _read_list(root / "dataset.json")
    classes = {int(value): str(name) for value, name in facts["labels"].items() if int(value)}
    names = [
        str(name) for _, name in sorted(facts.get("modality", {}).items(), key=lambda item: int(item[0]))
    ]
    components = _components(names, [modality] if isinstance(modality, str) else modality)
    window = "ct-soft-tissue" if names == ["CT"] else "auto"
    volumes = []
    for pair in facts["training"]:
        image, label = root / pair["image"], root / pair["label"]
        for path in (image, label):
            if not path.is_file():
                raise FileNotFoundError(
                    f"dataset.json lists {path.parent.name}/{path.name}, which is not in {root}. Fetch it, "
                    "or take the pair out of dataset.json."
                )
        patient = image.name.removesuffix(extension_of(image))
        volumes.append(LabelledVolume(patient, image, label, components=components, window=window))
    return open_volumes(volumes, classes)


def _components(names: Sequence[str], wanted: Sequence[str]) -> tuple[int, ...]:
    """Indices of the wanted images along the fourth axis; none where there is no such axis."""
    if any(wanted):
        unknown = [name for name in wanted if name not in names]
        if unknown or len(wanted) not in (1, 3):
            raise ValueError(
                f"modality {', '.join(wanted)!r} cannot be shown. Give one or three of "
                f"{', '.join(names) or 'none'}."
            )
    if len(names) < 2:
        return ()
    if any(wanted):
        return tuple(names.index(name) for name in wanted)
    return (0, 1, 2) if len(names) >= 3 else (0,)


def _read_list(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} has no dataset.json. Give {LAYOUT}")
    try:
        facts = read_json(path)
        if not facts["training"] or not all({"image", "label"} <= set(pair) for pair in facts["training"]):
            raise ValueError("'training' must list pairs of image and label")
        {int(value) for value in facts["labels"]}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not the list of a Decathlon task ({type(error).__name__}: {error}). It needs "
            "'labels' and 'training'; copy it again from the task."
        ) from error
    return facts
