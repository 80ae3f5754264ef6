"""One physical object on many grids: wherever the axes point, it lies at the same place in the patient."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest
import SimpleITK as sitk
from segmed.imaging.labels.masks import write_mask
from segmed.imaging.reading import read_volume

# RAS mm; off the centre of the grids along each axis, so that no flip keeps it in place
CENTRE = np.array([14.0, -20.0, 33.0])
RADII = np.array([8.0, 15.0, 11.0])
GRID_CENTRE = np.array([9.0, -14.0, 28.0])
EXTENT = 56.0


def _rotation(degrees: float, axis: tuple[float, float, float]) -> np.ndarray:
    x, y, z = np.array(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def _affine(
    directions: np.ndarray, spacing: tuple[float, float, float]
) -> tuple[np.ndarray, tuple[int, int, int]]:
    """A grid of EXTENT mm around GRID_CENTRE whose axes i, j, k point along the columns of `directions`."""
    i, j, k = (round(EXTENT / s) for s in spacing)
    affine = np.eye(4)
    affine[:3, :3] = directions * spacing
    affine[:3, 3] = GRID_CENTRE - affine[:3, :3] @ (np.array([i, j, k]) - 1) / 2
    return affine, (i, j, k)


OBLIQUE = _rotation(20, (1, 2, 3))
LPS = np.diag([-1.0, -1.0, 1.0])
GRIDS = {
    "ras": _affine(np.eye(3), (1.5, 1.5, 2)),
    "lps": _affine(LPS, (1.5, 1.5, 2)),
    "flipped-i": _affine(np.diag([-1.0, 1, 1]), (1.5, 1.5, 2)),
    "flipped-j": _affine(np.diag([1.0, -1, 1]), (1.5, 1.5, 2)),
    "flipped-k": _affine(np.diag([1.0, 1, -1]), (1.5, 1.5, 2)),
    "coronal": _affine(np.eye(3)[:, [0, 2, 1]] * [-1, -1, 1], (1.5, 1.5, 2)),
    "sagittal": _affine(np.eye(3)[:, [1, 2, 0]] * [-1, -1, 1], (1.5, 1.5, 2)),
    "cyclic": _affine(np.eye(3)[:, [2, 0, 1]], (1.5, 1.5, 2)),
    "oblique": _affine(OBLIQUE, (1.5, 1.5, 2)),
    "oblique-lps": _affine(OBLIQUE @ LPS, (1.5, 1.5, 2)),
    "anisotropic": _affine(LPS, (1.0, 1.0, 5.0)),
    "not-square": _affine(LPS, (0.9, 2.3, 2)),
    "oblique-all-sides": _affine(OBLIQUE[:, [2, 0, 1]] * [1, -1, 1], (0.9, 2.3, 3.5)),
}


def _draw(affine: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """The ellipsoid, 1000 on 0, by the world coordinates of each voxel."""
    index = np.stack([*np.indices(shape), np.ones(shape)], axis=-1)
    world = (index @ affine.T)[..., :3]
    return np.where((((world - CENTRE) / RADII) ** 2).sum(-1) < 1, 1000, 0).astype(np.int16)


def _write_nifti(folder: Path, voxels: np.ndarray, affine: np.ndarray) -> Path:
    path = folder / "image.nii.gz"
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return path


def _write_nifti_by_quaternion(folder: Path, voxels: np.ndarray, affine: np.ndarray) -> Path:
    image = nib.Nifti1Image(voxels, None)
    image.set_qform(affine, code=1)
    image.set_sform(None, code=0)
    nib.save(image, folder / "image.nii")
    return folder / "image.nii"


def _write_nrrd(folder: Path, voxels: np.ndarray, affine: np.ndarray) -> Path:
    header = {
        "space": "left-posterior-superior",
        "space directions": (LPS @ affine[:3, :3]).T,
        "space origin": LPS @ affine[:3, 3],
    }
    nrrd.write(str(folder / "image.nrrd"), voxels, header)
    return folder / "image.nrrd"


def _write_nrrd_in_ras(folder: Path, voxels: np.ndarray, affine: np.ndarray) -> Path:
    header = {
        "space": "right-anterior-superior",
        "space directions": affine[:3, :3].T,
        "space origin": affine[:3, 3],
    }
    nrrd.write(str(folder / "image.nrrd"), voxels, header)
    return folder / "image.nrrd"


WRITERS = {
    "nifti": _write_nifti,
    "nifti-qform": _write_nifti_by_quaternion,
    "nrrd": _write_nrrd,
    "nrrd-ras": _write_nrrd_in_ras,
}


@pytest.fixture(params=[*WRITERS, "dicom"])
def write_image(
    request: pytest.FixtureRequest, write_series: Callable[..., list[Path]]
) -> Callable[..., Path]:
    if request.param != "dicom":
        return WRITERS[request.param]

    def write_dicom(folder: Path, voxels: np.ndarray, affine: np.ndarray) -> Path:
        write_series(folder / "series", voxels, affine)
        return folder / "series"

    return write_dicom


def _assert_in_place(array: np.ndarray, affine: np.ndarray) -> None:
    """Centroid within half a voxel along each axis, and the extent along the world's axes that of the
    ellipsoid."""
    index = np.argwhere(array > 0)
    assert len(index) > 300
    miss = np.linalg.solve(affine[:3, :3], affine[:3, :3] @ index.mean(0) + affine[:3, 3] - CENTRE)
    assert np.abs(miss).max() < 0.5, f"off by {miss} voxels"
    world = index @ affine[:3, :3].T
    assert np.allclose(world.std(0), RADII / np.sqrt(5), rtol=0.1)


@pytest.mark.parametrize("grid", GRIDS)
def test_the_object_is_read_and_its_mask_written_in_place(
    tmp_path: Path, grid: str, write_image: Callable[..., Path]
) -> None:
    affine, shape = GRIDS[grid]
    volume = read_volume(write_image(tmp_path, _draw(affine, shape), affine))
    _assert_in_place(volume.array, volume.affine)

    mask = (volume.array > 500).astype(np.uint8)
    for name in ("mask.nrrd", "mask.nii.gz"):
        write_mask(mask, volume.affine, tmp_path / name)
        read_back = sitk.ReadImage(str(tmp_path / name))
        assert np.array_equal(sitk.GetArrayFromImage(read_back).T, mask)
        in_lps = np.array(
            [
                read_back.TransformContinuousIndexToPhysicalPoint(p)
                for p in np.vstack([np.zeros(3), np.eye(3)]).tolist()
            ]
        )
        by_itk = np.eye(4)
        by_itk[:3, :3], by_itk[:3, 3] = LPS @ (in_lps[1:] - in_lps[0]).T, LPS @ in_lps[0]
        _assert_in_place(mask, by_itk)
        assert np.allclose(by_itk, volume.affine, atol=1e-3)

    by_nibabel = nib.Nifti1Image.from_filename(tmp_path / "mask.nii.gz")
    _assert_in_place(np.asarray(by_nibabel.dataobj), by_nibabel.affine)
    stored, header = nrrd.read(str(tmp_path / "mask.nrrd"))
    by_header = np.eye(4)
    by_header[:3, :3], by_header[:3, 3] = LPS @ header["space directions"].T, LPS @ header["space origin"]
    _assert_in_place(stored, by_header)


@pytest.mark.parametrize("grid", ["lps", "oblique"])
def test_a_shift_of_one_voxel_would_be_seen(grid: str) -> None:
    affine, shape = GRIDS[grid]
    voxels = _draw(affine, shape)
    _assert_in_place(voxels, affine)
    for axis in range(3):
        with pytest.raises(AssertionError):
            _assert_in_place(np.flip(voxels, axis), affine)
        with pytest.raises(AssertionError):
            _assert_in_place(np.roll(voxels, 1, axis), affine)


def test_indices_are_those_of_the_file(tmp_path: Path) -> None:
    affine, shape = GRIDS["oblique-all-sides"]
    voxels = np.random.default_rng(0).integers(0, 99, shape).astype(np.int16)
    for write in WRITERS.values():
        volume = read_volume(write(tmp_path, voxels, affine))
        assert np.array_equal(volume.array, voxels)
        assert np.allclose(volume.affine, affine, atol=1e-3)
