"""FLARE 2022: abdominal CT with 13 organs.

Source: Ma et al., Unleashing the strengths of unlabelled data in deep learning-assisted pan-cancer abdominal
organ quantification: the FLARE22 challenge (The Lancet Digital Health, 2024)."""

from __future__ import annotations

import os
from pathlib import Path

from segmed.data.pairs import files_by_stem, find_folder, open_volumes, pair_up
from segmed.data.slices import LabelledVolume, SliceDataset

LABELS = {
    1: "liver",
    2: "right kidney",
    3: "spleen",
    4: "pancreas",
    5: "aorta",
    6: "inferior vena cava",
    7: "right adrenal gland",
    8: "left adrenal gland",
    9: "gallbladder",
    10: "oesophagus",
    11: "stomach",
    12: "duodenum",
    13: "left kidney",
}
LAYOUT = "imagesTr/FLARE22_Tr_0001_0000.nii.gz and labelsTr/FLARE22_Tr_0001.nii.gz, of the 50 labelled cases."


def load_flare22(folder: str | os.PathLike[str]) -> SliceDataset:
    """All axial slices of the labelled cases, in the soft-tissue window; each case is a patient.

    Args:
        folder: Folder with `imagesTr` and `labelsTr`, or with `images` and `labels`, as in the archive of
            labelled cases.

    Raises:
        FileNotFoundError: There are no images, or one has no label map.
        ValueError: No case can be used.
    """
    images = find_folder(Path(folder), "imagesTr", "images", holds="FLARE22_Tr_*_0000.nii.gz", layout=LAYOUT)
    labels = images.with_name(images.name.replace("images", "labels"))
    pairs = pair_up(files_by_stem(images, "_0000"), files_by_stem(labels), labels, LAYOUT)
    return open_volumes([LabelledVolume(*pair, window="ct-soft-tissue") for pair in pairs], LABELS)
