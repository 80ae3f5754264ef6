"""AMOS 2022: abdominal CT and MR with 15 organs.

Source: Ji et al., AMOS: A Large-Scale Abdominal Multi-Organ Benchmark for Versatile Medical Image
Segmentation (NeurIPS, 2022)."""

from __future__ import annotations

import os
from pathlib import Path

from segmed.data.pairs import files_by_stem, find_folder, open_volumes, pair_up
from segmed.data.slices import LabelledVolume, SliceDataset

LABELS = {
    1: "spleen",
    2: "right kidney",
    3: "left kidney",
    4: "gallbladder",
    5: "oesophagus",
    6: "liver",
    7: "stomach",
    8: "aorta",
    9: "postcava",
    10: "pancreas",
    11: "right adrenal gland",
    12: "left adrenal gland",
    13: "duodenum",
    14: "bladder",
    15: "prostate/uterus",
}
LAYOUT = "imagesTr/amos_0001.nii.gz and labelsTr/amos_0001.nii.gz; numbers from 500 on are MR."

_FIRST_MR = 500


def load_amos(folder: str | os.PathLike[str], modality: str = "") -> SliceDataset:
    """All axial slices of the training cases, CT in the soft-tissue window; each case is a patient.

    Args:
        folder: Folder with `imagesTr` and `labelsTr`.
        modality: `CT` or `MR`; "" takes both.

    Raises:
        FileNotFoundError: There are no images, none of the modality, or one has no label map.
        ValueError: The modality is unknown, or no case can be used.
    """
    if modality.upper() not in ("", "CT", "MR"):
        raise ValueError(f"modality {modality!r} is neither CT nor MR. Take one of them, or none for both.")
    images = find_folder(Path(folder), "imagesTr", holds="amos_*.nii.gz", layout=LAYOUT)
    labels = images.with_name("labelsTr")
    volumes = []
    for stem, image, label in pair_up(files_by_stem(images), files_by_stem(labels), labels, LAYOUT):
        number = stem.rpartition("_")[2]
        kind = "MR" if number.isdigit() and int(number) >= _FIRST_MR else "CT"
        if modality.upper() in ("", kind):
            window = "ct-soft-tissue" if kind == "CT" else "percentile"
            volumes.append(LabelledVolume(stem, image, label, window=window))
    if not volumes:
        raise FileNotFoundError(f"{images} holds no {modality.upper()} cases. Expected is {LAYOUT}")
    return open_volumes(volumes, LABELS)
