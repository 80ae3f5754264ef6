"""Tasks of the Medical Segmentation Decathlon: NIfTI volumes listed in a `dataset.json`.

Source: Antonelli et al., The Medical Segmentation Decathlon (Nature Communications, 2022).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError

from segmed.data.slices import LabelledVolume, SliceDataset, check_same_grid

_SAME_AFFINE = 1e-2  # mm


def load_msd(folder: str | os.PathLike[str]) -> SliceDataset:
    """All slices, along the last stored axis, of the training volumes of a task; each volume is a patient.

    Args:
        folder: of the task, with `dataset.json`, `imagesTr` and `labelsTr`.

    Raises:
        FileNotFoundError: no `dataset.json`, or a file that it lists is missing.
        ValueError: `dataset.json` or a volume cannot be read, or image and label map lie on different grids.
    """
    root = Path(folder)
    facts = _read_list(root / "dataset.json")
    classes = {int(value): str(name) for value, name in facts["labels"].items() if int(value)}
    volumes = []
    for pair in facts["training"]:
        image, label = root / pair["image"], root / pair["label"]
        for path in (image, label):
            if not path.is_file():
                raise FileNotFoundError(
                    f"dataset.json lists {path.parent.name}/{path.name}, which is not in {root}. Fetch it, or take the "
                    "pair out of dataset.json."
                )
        volumes.append(_pair(image, label))
    return SliceDataset(volumes, classes)


def _read_list(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path.parent} has no dataset.json. Give the folder of one Decathlon task, with dataset.json, imagesTr "
            "and labelsTr in it."
        )
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        if not facts["training"] or not all({"image", "label"} <= set(pair) for pair in facts["training"]):
            raise ValueError("'training' must list pairs of image and label")
        {int(value) for value in facts["labels"]}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not the list of a Decathlon task ({type(error).__name__}: {error}). It needs 'labels' and "
            "'training'; copy it again from the task."
        ) from error
    return dict(facts)


def _pair(image: Path, label: Path) -> LabelledVolume:
    """The pair if its headers agree."""
    headers = []
    for path in (image, label):
        try:
            header = nib.load(path)
        except (ImageFileError, OSError, ValueError) as error:
            raise ValueError(f"{path.name} cannot be read as NIfTI ({error}). Copy it again.") from error
        assert isinstance(header, nib.spatialimages.SpatialImage)
        headers.append(header)
    patient = image.name.removesuffix(".gz").removesuffix(".nii")
    volume = LabelledVolume(patient, image, label, int(headers[0].shape[2]))
    check_same_grid(volume, headers[0].shape, headers[1].shape)
    if not np.allclose(headers[0].affine, headers[1].affine, atol=_SAME_AFFINE):
        raise ValueError(
            f"{label.name} does not lie on {image.name}: their affines differ. Resample the label map to the image, or "
            "take the pair out of dataset.json."
        )
    return volume
