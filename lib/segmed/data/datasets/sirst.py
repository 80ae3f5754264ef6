"""NUAA-SIRST: small targets in single infrared frames.

Source: Dai et al., Asymmetric Contextual Modulation for Infrared Small Target Detection (WACV, 2021).
"""

from __future__ import annotations

import os
from pathlib import Path

from segmed.data.pairs import files_by_stem, find_folder, open_volumes, pair_up
from segmed.data.slices import LabelledVolume, SliceDataset
from segmed.data.split import Split

LABELS = {1: "target"}
LAYOUT = "images/Misc_1.png, masks/Misc_1_pixels0.png and the split in idx_427/{train,val,test}.txt."


def load_sirst(folder: str | os.PathLike[str], lists: str = "idx_427") -> SliceDataset:
    """All pictures, each a patient of its own; `published` is the authors' split where its lists exist.

    Args:
        folder: Folder with `images` and `masks`.
        lists: Folder in it that holds the split.

    Raises:
        FileNotFoundError: There are no pictures, one has no mask, or one that the split lists is missing.
        ValueError: No pair can be used, or a picture is in two parts of the split.
    """
    root = find_folder(Path(folder), holds="images/*.png", layout=LAYOUT)
    images = files_by_stem(root / "images")
    pairs = pair_up(images, files_by_stem(root / "masks", "_pixels0"), root / "masks", LAYOUT, "{}_pixels0")
    data = open_volumes([LabelledVolume(*pair) for pair in pairs], LABELS, unit="px", binary=True)
    parts = [_read_names(root / lists / f"{part}.txt", images) for part in ("train", "val", "test")]
    if any(parts):
        usable = set(data.patients)
        train, validation, test = (tuple(name for name in part if name in usable) for part in parts)
        data.published = Split(train, validation, test, seed=0)
    return data


def _read_names(path: Path, images: dict[str, Path]) -> list[str]:
    names = path.read_text(encoding="utf-8").split() if path.is_file() else []
    missing = [name for name in names if name not in images]
    if missing:
        raise FileNotFoundError(
            f"{path.parent.name}/{path.name} lists {missing[0]}, but there is no images/{missing[0]}.png "
            f"({len(missing)} of {len(names)} are missing). Fetch it, or take the name out of the list."
        )
    return names
