"""BTCV, also BCV or Synapse: abdominal CT with 13 organs.

Source: Landman et al., MICCAI Multi-Atlas Labeling Beyond the Cranial Vault workshop and challenge (2015).
"""

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
    9: "inferior vena cava",
    10: "portal and splenic vein",
    11: "pancreas",
    12: "right adrenal gland",
    13: "left adrenal gland",
}
LAYOUT = "RawData/Training/img/img0001.nii.gz and RawData/Training/label/label0001.nii.gz, of 30 cases."


def load_btcv(folder: str | os.PathLike[str]) -> SliceDataset:
    """All axial slices of the training cases, in the soft-tissue window; each case is a patient (`0001`).

    Args:
        folder: `Training`, `RawData`, or the folder that holds it.

    Raises:
        FileNotFoundError: There are no images, or one has no label map.
        ValueError: No case can be used.
    """
    inner = ("Training/img", "RawData/Training/img", "img")
    root = find_folder(Path(folder), *inner, holds="img*.nii.gz", layout=LAYOUT)
    labels = root.with_name("label")
    by_number, truth = (
        {stem.removeprefix(prefix): path for stem, path in files_by_stem(where).items()}
        for where, prefix in ((root, "img"), (labels, "label"))
    )
    pairs = pair_up(by_number, truth, labels, LAYOUT, "label{}")
    return open_volumes([LabelledVolume(*pair, window="ct-soft-tissue") for pair in pairs], LABELS)
