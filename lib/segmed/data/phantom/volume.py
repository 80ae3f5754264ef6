"""Procedural phantoms with known truth: the demo study and the fixtures of the tests. No patient data."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image
from scipy import ndimage

# centre and radii in units of the field of view, grey value as CT (HU) and MR (arbitrary)
_ORGANS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float], float, float]] = {
    "liver": ((0.33, 0.44, 0.60), (0.17, 0.19, 0.26), 110, 420),
    "spleen": ((0.74, 0.56, 0.62), (0.08, 0.11, 0.17), 125, 620),
    "kidney right": ((0.36, 0.68, 0.36), (0.06, 0.07, 0.17), 160, 760),
    "kidney left": ((0.64, 0.68, 0.38), (0.06, 0.07, 0.17), 160, 760),
    "aorta": ((0.51, 0.61, 0.50), (0.030, 0.032, 2.0), 210, 150),
    "lesion": ((0.29, 0.40, 0.62), (0.045, 0.045, 0.07), 55, 780),
}


@dataclass(frozen=True)
class Phantom:
    """An abdomen-like volume.

    Attributes:
        image: (I, J, K) int16, HU or arbitrary MR units.
        labels: (I, J, K) uint8, values as in `names`.
        names: value to name.
        affine: (4, 4) voxel to RAS mm.
    """

    image: np.ndarray
    labels: np.ndarray
    names: dict[int, str]
    affine: np.ndarray


def make_phantom(
    modality: str = "CT",
    shape: tuple[int, int, int] = (192, 160, 48),
    spacing: tuple[float, float, float] = (1.8, 1.8, 4.0),
    seed: int = 0,
    noise: float = 1.0,
) -> Phantom:
    """Draw a phantom; the same arguments give the same voxels.

    Args:
        modality: `CT` or `MR`.
        shape: voxels along (i, j, k).
        spacing: mm along (i, j, k); the grid is stored left-posterior-superior, as scanners store it.
        seed: of shapes, textures and noise.
        noise: factor on the noise, 0 for none.

    Raises:
        ValueError: another modality.
    """
    if modality not in ("CT", "MR"):
        raise ValueError(f"There is no phantom of modality {modality!r}. Choose CT or MR.")
    rng = np.random.default_rng(seed)
    axes = [(np.arange(n) + 0.5) / n for n in shape]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    warp = ndimage.gaussian_filter(rng.standard_normal(shape), [0.06 * n for n in shape])
    warp *= 0.09 / max(float(warp.std()), 1e-9)

    def blob(
        centre: tuple[float, float, float], radii: tuple[float, float, float], bend: float = 1.0
    ) -> np.ndarray:
        distance = sum(((p - c) / r) ** 2 for p, c, r in zip((x, y, z), centre, radii, strict=True))
        return np.asarray(np.sqrt(distance) + bend * warp < 1)

    ct = modality == "CT"
    image = np.full(shape, -1000.0 if ct else 0.0)
    image[blob((0.5, 0.52, 0.5), (0.44, 0.38, 9.0), 0.3)] = -95 if ct else 900  # fat
    image[blob((0.5, 0.52, 0.5), (0.40, 0.34, 9.0), 0.3)] = 45 if ct else 300  # muscle and bowel
    image[blob((0.5, 0.76, 0.5), (0.055, 0.060, 9.0), 0.4)] = 450 if ct else 120  # spine
    labels = np.zeros(shape, np.uint8)
    names: dict[int, str] = {}
    for value, (name, (centre, radii, hu, mr)) in enumerate(_ORGANS.items(), start=1):
        moved = tuple(c + float(rng.normal(0, 0.006)) for c in centre)
        organ = blob((moved[0], moved[1], moved[2]), radii, 0.3 if name == "aorta" else 1.0)
        image[organ], labels[organ], names[value] = (hu if ct else mr), value, name
    grain = ndimage.gaussian_filter(rng.standard_normal(shape), 1.2)
    image = ndimage.gaussian_filter(image, 0.6) + noise * grain / grain.std() * (10 if ct else 25)
    if not ct:
        field = 1 + 0.25 * np.sin(2 * np.pi * (0.6 * x + 0.4 * y + rng.random()))
        real = image * field + noise * 20 * rng.standard_normal(shape)
        image = np.hypot(real, noise * 20 * rng.standard_normal(shape))  # Rician
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    affine[:3, 3] = [shape[0] * spacing[0] / 2, shape[1] * spacing[1] / 2, -shape[2] * spacing[2] / 2]
    return Phantom(image.round().clip(-1024, 3071).astype(np.int16), labels, names, affine)


def write_demo_study(folder: str | os.PathLike[str]) -> list[Path]:
    """Write two volumes and one picture that a first-time user can open; existing files stay.

    Returns:
        Paths of the images.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in ("phantom_ct.nii.gz", "phantom_mr.nii.gz", "phantom_slice.png")]
    for path, modality in zip(paths[:2], ("CT", "MR"), strict=True):
        if not path.exists():
            phantom = make_phantom(modality, seed=7)
            nib.save(nib.Nifti1Image(phantom.image, phantom.affine), path)
    if not paths[2].exists():
        grey = make_phantom("MR", seed=11).image[:, :, 30].T
        Image.fromarray((grey / grey.max() * 255).clip(0, 255).astype(np.uint8)).save(paths[2])
    return paths
