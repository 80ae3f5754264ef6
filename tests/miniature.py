"""Drawn bodies in the true layouts of public datasets, small enough to train on in a second."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image
from segmed.data.phantom import Phantom, make_phantom

# names of the phantom's structures by the dataset's values
FLARE = {1: "liver", 2: "kidney right", 3: "spleen", 5: "aorta", 13: "kidney left"}
BRATS = {1: "lesion", 2: "liver", 3: "spleen"}
GID = {0: "liver", 1: "spleen", 2: "kidney right", 3: "kidney left", 4: "aorta"}  # as stored; 5 is nobody's


def body(seed: int, modality: str = "MR") -> Phantom:
    return make_phantom(modality, shape=(64, 56, 4), spacing=(5.4, 5.4, 48.0), seed=seed)


def relabelled(phantom: Phantom, values: dict[int, str], rest: int = 0) -> np.ndarray:
    of_name = {name: value for value, name in phantom.names.items()}
    out = np.full(phantom.labels.shape, rest, np.uint8)
    for value, name in values.items():
        out[phantom.labels == of_name[name]] = value
    return out


def colour(phantom: Phantom, k: int) -> np.ndarray:
    """Slice k as (H, W, 3) uint8, three shades of it."""
    grey = phantom.image[:, :, k].T.astype(float)
    grey = (grey - grey.min()) / max(float(np.ptp(grey)), 1.0)
    return (255 * np.stack([grey, grey**0.5, grey**2], -1)).astype(np.uint8)


def save(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if affine is not None:
        nib.save(nib.Nifti1Image(array, affine), path)
    else:
        Image.fromarray(array).save(path)


def lgg(root: Path, patients: int = 6) -> Path:
    for n in range(patients):
        phantom, name = body(n), f"TCGA_XX_{n:04d}_19990101"
        for k in range(4):
            mask = 255 * (relabelled(phantom, {1: "liver"})[:, :, k].T if k else np.zeros((56, 64), np.uint8))
            save(root / "kaggle_3m" / name / f"{name}_{k + 1}.tif", colour(phantom, k))
            save(root / "kaggle_3m" / name / f"{name}_{k + 1}_mask.tif", mask.astype(np.uint8))
    return root


def brats(root: Path, patients: int = 6) -> Path:
    for n in range(patients):
        phantom, name = body(n + 20), f"BraTS-GLI-{n:05d}-000"
        for power, part in ((1.0, "t1n"), (0.7, "t1c"), (1.3, "t2w"), (0.5, "t2f")):
            image = np.clip(phantom.image, 0, None).astype(np.float32) ** power
            save(root / name / f"{name}-{part}.nii.gz", image, phantom.affine)
        save(root / name / f"{name}-seg.nii.gz", relabelled(phantom, BRATS), phantom.affine)
    return root


def flare22(root: Path, patients: int = 6) -> Path:
    for n in range(patients):
        phantom = body(n + 40, "CT")
        save(root / "imagesTr" / f"FLARE22_Tr_{n:04d}_0000.nii.gz", phantom.image, phantom.affine)
        save(root / "labelsTr" / f"FLARE22_Tr_{n:04d}.nii.gz", relabelled(phantom, FLARE), phantom.affine)
    return root


def sessile(root: Path, patients: int = 8) -> Path:
    for n in range(patients):
        phantom = body(n + 60)
        save(root / "sessile-main-Kvasir-SEG" / "images" / f"c{n}.jpg", colour(phantom, 2))
        save(
            root / "sessile-main-Kvasir-SEG" / "masks" / f"c{n}.jpg",
            255 * relabelled(phantom, {1: "liver"})[:, :, 2].T,
        )
    return root


def cvc(root: Path) -> Path:
    for n in (1, 26, 51, 68):
        phantom = body(n + 80)
        save(root / "Original" / f"{n}.tif", colour(phantom, 2))
        save(root / "Ground Truth" / f"{n}.tif", 255 * relabelled(phantom, {1: "spleen"})[:, :, 2].T)
    return root


def gid5(root: Path, tiles: int = 8) -> Path:
    for n in range(tiles):
        phantom = body(n + 200)
        save(root / "image" / "forest" / f"{n}.tif", colour(phantom, 2))
        save(
            root / "label_gray" / "forest" / f"{n}.tif",
            np.ascontiguousarray(relabelled(phantom, GID, 5)[:, :, 2].T),
        )
    return root


def sirst(root: Path, frames: int = 8) -> Path:
    for n in range(frames):
        phantom = body(n + 300)
        save(root / "images" / f"Misc_{n}.png", np.ascontiguousarray(colour(phantom, 1)[..., 0]))
        save(
            root / "masks" / f"Misc_{n}_pixels0.png", 255 * relabelled(phantom, {1: "kidney left"})[:, :, 1].T
        )
    (root / "idx_427").mkdir()
    parts = {"train": range(5), "val": range(5, 6), "test": range(6, frames)}
    for part, numbers in parts.items():
        (root / "idx_427" / f"{part}.txt").write_text(
            "".join(f"Misc_{n}\n" for n in numbers), encoding="utf-8"
        )
    return root


LAYOUTS = {
    "lgg": lgg,
    "brats": brats,
    "flare22": flare22,
    "kvasir-sessile": sessile,
    "cvc-clinicdb": cvc,
    "gid5": gid5,
    "sirst": sirst,
}
