"""Miniature trees of every dataset in its public layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image
from segmed.data.datasets.catalogue import load_dataset
from segmed.data.slices import SliceDataset

AFFINE = np.diag([0.5, 0.75, 3.0, 1.0])
SHAPE = (9, 7, 3)
Builder = Callable[[Path], None]


def nifti(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)


def picture(path: Path, array: np.ndarray, **options: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def scan(low: float = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, 1000, SHAPE).round().astype(np.float32)


def labels(count: int) -> np.ndarray:
    """Every label once, from voxel 0 on; the rest is background."""
    out = np.zeros(SHAPE, np.uint8)
    out.flat[:count] = np.arange(1, count + 1)
    return out


def flare(root: Path) -> None:
    for n in (10, 2):
        nifti(root / "imagesTr" / f"FLARE22_Tr_{n:04d}_0000.nii.gz", scan(-1000, n))
        nifti(root / "labelsTr" / f"FLARE22_Tr_{n:04d}.nii.gz", labels(13))


def btcv(root: Path) -> None:
    for n in (10, 2):
        nifti(root / "RawData" / "Training" / "img" / f"img{n:04d}.nii.gz", scan(-1000, n))
        nifti(root / "RawData" / "Training" / "label" / f"label{n:04d}.nii.gz", labels(13))


def amos(root: Path) -> None:
    for n in (507, 2):
        nifti(root / "imagesTr" / f"amos_{n:04d}.nii.gz", scan(-1000 if n < 500 else 1, n))
        nifti(root / "labelsTr" / f"amos_{n:04d}.nii.gz", labels(15))
    (root / "dataset.json").write_text("{}")


def brats(root: Path) -> None:
    for case in ("00003-001", "00003-000", "00001-000"):
        name = f"BraTS-GLI-{case}"
        for seed, part in enumerate(("t1n", "t1c", "t2w", "t2f")):
            nifti(root / name / f"{name}-{part}.nii.gz", scan(seed=seed))
        nifti(root / name / f"{name}-seg.nii.gz", labels(3))


def polyps(root: Path) -> None:
    mask = np.zeros((12, 10), np.uint8)
    mask[3:9, 2:8] = 255
    for name in ("b2", "b10"):
        picture(root / "images" / f"{name}.jpg", np.full((12, 10, 3), 90, np.uint8))
        picture(root / "masks" / f"{name}.jpg", mask, quality=30)


def kvasir(root: Path) -> None:
    polyps(root / "Kvasir-SEG")
    (root / "Kvasir-SEG" / "kavsir_bboxes.json").write_text("{}")


def sessile(root: Path) -> None:
    polyps(root / "sessile-main-Kvasir-SEG")


def cvc(root: Path) -> None:
    for n in (26, 3, 25, 612):
        picture(root / "Original" / f"{n}.tif", np.full((12, 10, 3), n % 256, np.uint8))
        picture(root / "Ground Truth" / f"{n}.tif", np.full((12, 10), 255, np.uint8))


def gid(root: Path) -> None:
    for kind in ("farmland", "built-up"):
        for n in (1, 2):
            picture(root / "image" / kind / f"{n}.tif", np.full((6, 8, 3), n, np.uint8))
            picture(root / "label_gray" / kind / f"{n}.tif", np.arange(48, dtype=np.uint8).reshape(6, 8) % 6)
            picture(root / "label_color" / kind / f"{n}.tif", np.zeros((6, 8, 3), np.uint8))


def sirst(root: Path) -> None:
    shapes = {"Misc_1": (8, 9), "Misc_2": (7, 5, 3), "Misc_10": (6, 6, 4)}
    for name, shape in shapes.items():
        mask = np.zeros(shape[:2], np.uint8)
        mask[2, 3] = 255
        picture(root / "images" / f"{name}.png", np.full(shape, 7, np.uint8))
        picture(root / "masks" / f"{name}_pixels0.png", mask)
    (root / "idx_427").mkdir()
    for part, names in (("train", "Misc_10\nMisc_1\n"), ("val", ""), ("test", "Misc_2\n")):
        (root / "idx_427" / f"{part}.txt").write_text(names)


def msd(root: Path) -> None:
    nifti(root / "imagesTr" / "BRATS_001.nii.gz", np.stack([scan(seed=n) for n in range(4)], -1))
    nifti(root / "labelsTr" / "BRATS_001.nii.gz", labels(3))
    facts = {
        "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
        "labels": {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
        "training": [{"image": "./imagesTr/BRATS_001.nii.gz", "label": "./labelsTr/BRATS_001.nii.gz"}],
    }
    (root / "dataset.json").write_text(json.dumps(facts))


def lgg(root: Path) -> None:
    for n in (10, 9):
        picture(root / "kaggle_3m" / "TCGA_A" / f"TCGA_A_{n}.tif", np.full((6, 5, 3), n, np.uint8))
        picture(root / "kaggle_3m" / "TCGA_A" / f"TCGA_A_{n}_mask.tif", np.full((6, 5), 255, np.uint8))


def folder(root: Path) -> None:
    for name in ("p1_b", "p1_a", "p2_a"):
        nifti(root / "images" / f"{name}.nii.gz", scan())
        nifti(root / "labels" / f"{name}.nii.gz", labels(2))
    (root / "labels.json").write_text('{"labels": {"background": 0, "left lung": 1, "tumour": 2}}')


def datastore(root: Path) -> None:
    """As the server writes it: values go by the order of the names, and `idx` is not to be trusted."""
    orders = {"ct 2": ["liver", "spleen"], "ct 10": ["spleen", "Liver"], "ct 3": None}
    objects = {}
    for name, order in orders.items():
        nifti(root / f"{name}.nii.gz", scan())
        entry: dict[str, object] = {"image": {"ext": ".nii.gz", "info": {"ts": 1, "name": f"{name}.nii.gz"}}}
        entry["labels"] = {}
        if order:
            info = {
                "label_info": [{"name": n, "idx": 7 - i} for i, n in enumerate(order)],
                "client_id": "user",
            }
            entry["labels"] = {
                "final": {"ext": ".nii.gz", "info": info},
                "original": {"ext": ".nii.gz", "info": {}},
            }
            for tag in ("final", "original"):
                nifti(root / "labels" / tag / f"{name}.nii.gz", labels(2))
        objects[name] = entry
    facts = {
        "name": "new-dataset",
        "description": "",
        "images_dir": ".",
        "labels_dir": "labels",
        "objects": objects,
    }
    (root / "datastore_v2.json").write_text(json.dumps(facts))


BUILDERS: dict[str, Builder] = {
    "lgg": lgg,
    "brats": brats,
    "flare22": flare,
    "btcv": btcv,
    "amos": amos,
    "kvasir-seg": kvasir,
    "kvasir-sessile": sessile,
    "cvc-clinicdb": cvc,
    "gid5": gid,
    "sirst": sirst,
    "msd": msd,
    "folder": folder,
    "datastore": datastore,
}


def built(name: str, root: Path, **options: object) -> SliceDataset:
    BUILDERS[name](root)
    return load_dataset(name, root, **options)
