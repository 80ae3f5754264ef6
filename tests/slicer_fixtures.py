"""What the tests with 3D Slicer's module share: three volumes of one body, a server on them, and measures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from dicom_phantom import in_plane
from running import Server, Start
from segmed.data.phantom import Phantom
from segmed.evaluation.metrics import Overlap
from slicer_client import Slicer
from slicer_scene import Roi

NAMES = ["liver", "spleen", "kidney right"]
IMAGES = ("lps", "ras", "oblique")
K = 14


@pytest.fixture(scope="session")
def bodies(phantom: Phantom) -> dict[str, Phantom]:
    """One body on three grids."""
    affine = phantom.affine @ np.diag([-1.0, -1.0, 1.0, 1.0])
    affine[:3, 3] += phantom.affine[:3, :2] @ (np.array(phantom.image.shape[:2]) - 1)
    flipped = replace(
        phantom, image=phantom.image[::-1, ::-1], labels=phantom.labels[::-1, ::-1], affine=affine
    )
    return {"lps": phantom, "ras": flipped, "oblique": in_plane(phantom, "oblique")}


@pytest.fixture(scope="session")
def slicer_server(
    start_shared: Start, bodies: dict[str, Phantom], weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> Server:
    studies = tmp_path_factory.mktemp("slicer")
    for name, body in bodies.items():
        nib.save(nib.Nifti1Image(body.image, body.affine), studies / f"{name}.nii.gz")
    words = {"models": "segmed,classical,lora", "untrained": "true", "backbone_lora": str(weights)}
    words["labels"] = ",".join(NAMES)
    return start_shared(studies, *(w for key, value in words.items() for w in ("--conf", key, value)))


@pytest.fixture
def own_volume(slicer_server: Server, bodies: dict[str, Phantom], tmp_path: Path) -> Slicer:
    """A user who loaded a volume by hand; 3D Slicer's names of volumes hold anything."""
    slicer = Slicer(slicer_server.url, tmp_path / "slicer")
    slicer.connect()
    nib.save(nib.Nifti1Image(bodies["lps"].image, bodies["lps"].affine), tmp_path / "own.nii.gz")
    slicer.load(tmp_path / "own.nii.gz", "2: CT/Thorax Müller")
    return slicer


def truth(body: Phantom, name: str) -> np.ndarray:
    return np.asarray(body.labels == next(v for v, n in body.names.items() if n == name))


def edges(mask: np.ndarray) -> list[tuple[int, int]]:
    return [(int(i.min()), int(i.max())) for i in np.nonzero(mask)]


def roi_around(slicer: Slicer, mask: np.ndarray) -> Roi:
    """The box in RAS whose corners, as the module converts them, are the mask's.

    On a straight grid that is the box around the mask; on a tilted one it has to be tried for.
    """
    ends = edges(mask)
    step = np.sign(np.round(slicer.affine[:3, :3].diagonal(), 6))
    low = [e[0] if s > 0 else e[1] for e, s in zip(ends, step, strict=True)]
    high = [e[1] if s > 0 else e[0] for e, s in zip(ends, step, strict=True)]
    return Roi.between(slicer.ras(low), slicer.ras(high))


def inside(mask: np.ndarray) -> list[float]:
    """The voxel farthest from the edge of a mask on slice K."""
    flat = mask[:, :, K].astype(np.uint8)
    depth = sitk.GetArrayFromImage(
        sitk.SignedMaurerDistanceMap(sitk.GetImageFromArray(flat), True, True, False)
    )
    i, j = np.unravel_index(depth.argmax(), depth.shape)
    return [float(i), float(j), K]


def dice_in_the_patient(mask: sitk.Image, truth: np.ndarray, affine: np.ndarray) -> float:
    """Dice of a mask with a truth on a grid of its own; voxels meet where they lie in the patient."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    reference = sitk.GetImageFromArray(truth.T.astype(np.uint8))
    reference.SetSpacing(spacing.tolist())
    reference.SetDirection((np.diag([-1, -1, 1]) @ (affine[:3, :3] / spacing)).ravel().tolist())
    reference.SetOrigin((affine[:3, 3] * [-1, -1, 1]).tolist())
    moved = sitk.GetArrayFromImage(
        sitk.Resample(mask, reference, sitk.Transform(), sitk.sitkNearestNeighbor)
    ).T
    return Overlap.of(moved > 0, truth).dice()


def slab(mask: np.ndarray) -> np.ndarray:
    return mask & (np.arange(mask.shape[2]) == K)


def same_grid(a: sitk.Image, b: sitk.Image) -> bool:
    """Within the digits that NRRD and NIfTI keep."""
    one, other = (np.concatenate([i.GetOrigin(), i.GetSpacing(), i.GetDirection()]) for i in (a, b))
    return a.GetSize() == b.GetSize() and bool(np.allclose(one, other, atol=1e-4))
