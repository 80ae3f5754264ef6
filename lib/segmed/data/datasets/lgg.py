"""The LGG brain MR set: slices as colour TIFF files, one folder per patient.

Source: Buda, Saha and Mazurowski, Association of genomic subtypes of lower-grade gliomas with shape features
automatically extracted by a deep learning algorithm (Computers in Biology and Medicine, 2019).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from segmed.data.pairs import open_volumes
from segmed.data.slices import LabelledVolume, SliceDataset

LABELS = {1: "FLAIR abnormality"}
LAYOUT = "kaggle_3m, with a folder per patient and in it <patient>_1.tif and <patient>_1_mask.tif, …_2.tif, …"

_SLICE = re.compile(r"^(?P<patient>.+)_(?P<number>\d+)\.tif$")


def load_lgg(folder: str | os.PathLike[str]) -> SliceDataset:
    """All slices: `kaggle_3m/<patient>/<patient>_<n>.tif` with `…_<n>_mask.tif` beside it.

    The channels are pre-contrast, FLAIR and post-contrast; label 1 is the FLAIR abnormality. Slices come in
    the order of n, which the file names do not pad.

    Args:
        folder: `kaggle_3m` or the folder that holds it.

    Raises:
        FileNotFoundError: There is no such folder, it holds no slices, or a slice has no mask.
        ValueError: No slice can be used.
    """
    root = Path(folder)
    root = root / "kaggle_3m" if (root / "kaggle_3m").is_dir() else root
    slices = [(match, path) for path in root.glob("*/*.tif") if (match := _SLICE.match(path.name))]
    if not slices:
        raise FileNotFoundError(f"{root} holds no LGG slices. Give the folder {LAYOUT}")
    volumes = []
    for _, path in sorted(slices, key=lambda item: (item[1].parent.name, int(item[0]["number"]))):
        mask = path.with_name(f"{path.stem}_mask.tif")
        if not mask.is_file():
            raise FileNotFoundError(
                f"{path.parent.name}/{path.name} has no {mask.name}. Fetch it, or remove the slice."
            )
        volumes.append(LabelledVolume(path.parent.name, path, mask))
    return open_volumes(volumes, LABELS, unit="px", binary=True)
