"""GID-5 as tiles: land cover in satellite images.

Source: Tong et al., Land-cover classification with high-resolution remote sensing images using transferable
deep models (Remote Sensing of Environment, 2020)."""

from __future__ import annotations

import os
from pathlib import Path

from segmed.data.pairs import files_by_stem, find_folder, natural, open_volumes, pair_up
from segmed.data.slices import LabelledVolume, SliceDataset

LABELS = {1: "built-up", 2: "farmland", 3: "forest", 4: "meadow", 5: "water"}
LAYOUT = "image/<class>/<n>.tif in three bands and label_gray/<class>/<n>.tif with 0 to 5."
STORED = {0: 1, 1: 2, 2: 3, 3: 4, 4: 5, 5: 0}  # built-up is stored as 0, undefined as 5


def load_gid5(folder: str | os.PathLike[str]) -> SliceDataset:
    """All tiles; the patient is the tile, because the files do not state the scene that it was cut from.

    Stored values are raised by one, so that 0 stands for undefined pixels, which count as background.

    Args:
        folder: Folder with `image` and `label_gray`.

    Raises:
        FileNotFoundError: There are no tiles, or one has no label.
        ValueError: No tile can be used.
    """
    root = find_folder(Path(folder), holds="image/*/*.tif", layout=LAYOUT)
    volumes = []
    for images in sorted(
        (p for p in (root / "image").iterdir() if p.is_dir()), key=lambda p: natural(p.name)
    ):
        labels = root / "label_gray" / images.name
        for stem, image, label in pair_up(files_by_stem(images), files_by_stem(labels), labels, LAYOUT):
            volumes.append(LabelledVolume(f"{images.name}/{stem}", image, label, values=STORED))
    return open_volumes(volumes, LABELS, unit="px")
