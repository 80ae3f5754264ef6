"""The catalogue of the datasets that can be opened by name."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segmed.data import datastore
from segmed.data.datasets import amos, brats, btcv, cvc, flare, folder, gid, kvasir, lgg, msd, sirst
from segmed.data.slices import SliceDataset, sided


@dataclass(frozen=True)
class Dataset:
    """A public dataset.

    Attributes:
        name: Short name for commands.
        title: Full name for users.
        load: Function that opens the dataset, given its folder and options by name.
        source: Address where the dataset can be obtained.
        layout: Required contents of the folder, in one sentence.
        labels: Label names by value; empty where the files name them.
    """

    name: str
    title: str
    load: Callable[..., SliceDataset]
    source: str
    layout: str
    labels: Mapping[int, str]

    @property
    def lateralised(self) -> tuple[str, ...]:
        """Labels that mirroring would make wrong; if files name labels, see the opened dataset."""
        return sided(self.labels.values())

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the options that `load` takes besides the folder."""
        return tuple(inspect.signature(self.load).parameters)[1:]


_KVASIR, _MADE = "https://datasets.simula.no", "files of your own"
DATASETS = {
    entry.name: entry
    for entry in (
        Dataset(
            "lgg",
            "LGG brain MR, FLAIR abnormality",
            lgg.load_lgg,
            "https://www.kaggle.com/datasets/mateuszbuda/lgg-mri-segmentation",
            lgg.LAYOUT,
            lgg.LABELS,
        ),
        Dataset(
            "brats",
            "BraTS 2023 adult glioma",
            brats.load_brats,
            "https://www.synapse.org/brats2023",
            brats.LAYOUT,
            brats.LABELS,
        ),
        Dataset(
            "flare22",
            "FLARE 2022 abdominal CT",
            flare.load_flare22,
            "https://flare22.grand-challenge.org",
            flare.LAYOUT,
            flare.LABELS,
        ),
        Dataset(
            "btcv",
            "BTCV abdominal CT (BCV, Synapse)",
            btcv.load_btcv,
            "https://www.synapse.org/Synapse:syn3193805",
            btcv.LAYOUT,
            btcv.LABELS,
        ),
        Dataset(
            "amos",
            "AMOS 2022 abdominal CT and MR",
            amos.load_amos,
            "https://amos22.grand-challenge.org",
            amos.LAYOUT,
            amos.LABELS,
        ),
        Dataset(
            "kvasir-seg",
            "Kvasir-SEG polyps",
            kvasir.load_kvasir_seg,
            f"{_KVASIR}/kvasir-seg",
            kvasir.SEG_LAYOUT,
            kvasir.LABELS,
        ),
        Dataset(
            "kvasir-sessile",
            "Kvasir-Sessile polyps",
            kvasir.load_kvasir_sessile,
            f"{_KVASIR}/kvasir-seg",
            kvasir.SESSILE_LAYOUT,
            kvasir.LABELS,
        ),
        Dataset(
            "cvc-clinicdb",
            "CVC-ClinicDB polyps (CVC-612)",
            cvc.load_cvc_clinicdb,
            "https://polyp.grand-challenge.org/CVCClinicDB",
            cvc.LAYOUT,
            cvc.LABELS,
        ),
        Dataset(
            "gid5",
            "GID-5 land cover tiles",
            gid.load_gid5,
            "https://x-ytong.github.io/project/GID.html",
            gid.LAYOUT,
            gid.LABELS,
        ),
        Dataset(
            "sirst",
            "NUAA-SIRST infrared targets",
            sirst.load_sirst,
            "https://github.com/YimianDai/sirst",
            sirst.LAYOUT,
            sirst.LABELS,
        ),
        Dataset(
            "msd",
            "A task of the Medical Segmentation Decathlon",
            msd.load_msd,
            "http://medicaldecathlon.com",
            msd.LAYOUT,
            {},
        ),
        Dataset(
            "folder", "Images and label maps in two folders", folder.load_folder, _MADE, folder.LAYOUT, {}
        ),
        Dataset(
            "datastore",
            "Labels submitted to a MONAI Label server",
            datastore.load_datastore,
            _MADE,
            datastore.LAYOUT,
            {},
        ),
    )
}


def find_dataset(name: str) -> Dataset:
    """The entry of a dataset.

    Raises:
        ValueError: There is no dataset of this name.
    """
    if name not in DATASETS:
        raise ValueError(f"There is no dataset {name!r}. Known are {', '.join(DATASETS)}.")
    return DATASETS[name]


def load_dataset(name: str, root: str | os.PathLike[str], **options: Any) -> SliceDataset:
    """Open a dataset; headers are read, voxels are not.

    Args:
        name: One of `DATASETS`.
        root: Folder of the dataset.
        options: Options of the loader, such as `modality`.

    Raises:
        FileNotFoundError: The folder or a file in it is missing.
        ValueError: The name or an option is unknown, or no pair of image and label map can be used.
    """
    entry = find_dataset(name)
    if not Path(root).is_dir():
        raise FileNotFoundError(
            f"There is no folder {root}. Get {entry.title} from {entry.source} and put there {entry.layout}"
        )
    unknown = [option for option in options if option not in entry.options]
    if unknown:
        raise ValueError(
            f"{name} has no option {unknown[0]!r}. It takes {', '.join(entry.options) or 'none'}; leave it "
            f"out."
        )
    return entry.load(root, **options)
