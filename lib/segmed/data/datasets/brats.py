"""BraTS 2023, adult glioma: four MR sequences and the tumour's parts.

Source: Baid et al., The RSNA-ASNR-MICCAI BraTS 2021 Benchmark on Brain Tumor Segmentation and Radiogenomic
Classification (2021), whose cases and labels the 2023 challenge took over with other file names and label 3
for 4."""

from __future__ import annotations

import os
import re
from pathlib import Path

from segmed.data.pairs import open_volumes
from segmed.data.slices import LabelledVolume, SliceDataset

LABELS = {1: "necrotic core", 2: "oedema", 3: "enhancing tumour"}
REGIONS = {"whole tumour": (1, 2, 3), "tumour core": (1, 3), "enhancing tumour": (3,)}
SEQUENCES = ("t1n", "t1c", "t2w", "t2f")
STACK = ("t1c", "t2w", "t2f")
LAYOUT = "a folder per case, BraTS-GLI-00000-000/BraTS-GLI-00000-000-{t1n,t1c,t2w,t2f,seg}.nii.gz."

_CASE = re.compile(r"^(?P<patient>BraTS-\w+-\d+)-\d+$")


def load_brats(folder: str | os.PathLike[str], modality: str = "", region: str = "") -> SliceDataset:
    """All axial slices. A patient may have several cases, from different times.

    Each sequence is clipped to the 0.5 and 99.5 percentiles of its voxels above zero.

    Args:
        folder: Folder that holds the folders of the cases, or a folder with them.
        modality: One of `SEQUENCES` in grey; "" shows T1c, T2w and T2f as red, green and blue.
        region: One of `REGIONS` as label 1; "" keeps the three labels, of which the regions are unions.

    Raises:
        FileNotFoundError: There is no case, or a case lacks one of its files.
        ValueError: The modality or region is unknown, or no case can be used.
    """
    for what, given, allowed in (
        ("modality", modality.lower(), SEQUENCES),
        ("region", region, tuple(REGIONS)),
    ):
        if given and given not in allowed:
            raise ValueError(
                f"{what} {given!r} is not one of {', '.join(allowed)}. Take one of them, or none for all."
            )
    root = Path(folder)
    cases = {
        path.name: path for pattern in ("*/", "*/*/") for path in root.glob(pattern) if _CASE.match(path.name)
    }
    if not cases:
        raise FileNotFoundError(f"{root} holds no BraTS cases. Expected is {LAYOUT}")
    values = {value: int(value in REGIONS[region]) for value in LABELS} if region else None
    volumes = []
    for name, path in sorted(cases.items()):
        files = [
            path / f"{name}-{part}.nii.gz" for part in (*([modality.lower()] if modality else STACK), "seg")
        ]
        missing = [file for file in files if not file.is_file()]
        if missing:
            raise FileNotFoundError(
                f"{missing[0].name} is not in {path}. Fetch it, or remove the case's folder."
            )
        patient = _CASE.sub(r"\g<patient>", name)
        image, *channels, label = files
        volumes.append(
            LabelledVolume(
                patient, image, label, channels=tuple(channels), window="percentile", values=values
            )
        )
    return open_volumes(volumes, {1: region} if region else LABELS)
