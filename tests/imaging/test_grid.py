"""Headers, and label maps that lie on another grid than their image."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from segmed.imaging.grid import Grid, move_labels, read_grid, read_labels
from segmed.imaging.reading import read_volume

AFFINE = np.array([[0, -2.0, 0, 30], [1.5, 0, 0, -7], [0, 0, 3, 4], [0, 0, 0, 1]])


def _save(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.nrrd", "a.mha", "a.png", "a.jpg", "a.tif"])
def test_the_header_tells_what_the_voxels_tell(tmp_path: Path, name: str) -> None:
    array = np.random.default_rng(0).integers(
        0, 255, (5, 7, 1 if name[2:] in ("png", "jpg", "tif") else 4), np.uint8
    )
    if ".nii" in name:
        _save(tmp_path / name, array)
    elif array.shape[2] == 1:
        Image.fromarray(array[:, :, 0].T).save(tmp_path / name)
    else:
        image = sitk.GetImageFromArray(array.transpose(2, 1, 0))
        image.SetSpacing((0.5, 2.0, 3.0))
        image.SetOrigin((9.0, -4.0, 1.0))
        sitk.WriteImage(image, str(tmp_path / name))
    grid, volume = read_grid(tmp_path / name), read_volume(tmp_path / name)
    assert grid.shape == volume.shape
    assert (grid.channels, grid.components) == (1, 1)
    if array.shape[2] == 1:
        assert grid.affine is None
    else:
        assert grid.affine is not None
        assert np.allclose(grid.affine, volume.affine)
        assert np.allclose(grid.spacing, volume.spacing)


def test_channels_and_components(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((6, 5, 4), np.uint8)).save(tmp_path / "rgba.png")
    assert read_grid(tmp_path / "rgba.png") == Grid((5, 6, 1), None, 4)
    values = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    four = _save(tmp_path / "four.nii.gz", values)
    grid = read_grid(four)
    assert (grid.shape, grid.channels, grid.components) == ((2, 3, 4), 1, 5)
    assert np.array_equal(read_volume(four, component=3).array, values[..., 3])
    (tmp_path / "broken.nii").write_bytes(b"x" * 400)
    with pytest.raises(ValueError, match=r"broken\.nii cannot be read"):
        read_grid(tmp_path / "broken.nii")


def test_labels_are_moved_by_world_coordinates(tmp_path: Path) -> None:
    labels = np.zeros((8, 6, 5), np.uint8)
    labels[2:5, 1:4, 2:4] = 3
    image = Grid(labels.shape, AFFINE)
    # the same voxels stored with an axis turned round, and cropped
    turned = AFFINE @ np.array([[-1, 0, 0, 7], [0, 1, 0, 0], [0, 0, 1, 2], [0, 0, 0, 1.0]])
    path = _save(tmp_path / "turned.nii.gz", np.ascontiguousarray(labels[::-1, :, 2:]), turned)
    assert np.array_equal(read_labels(path, image), labels)
    # twice the resolution in plane
    fine = AFFINE @ np.array([[0.5, 0, 0, -0.25], [0, 0.5, 0, -0.25], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    path = _save(tmp_path / "fine.nii.gz", labels.repeat(2, 0).repeat(2, 1), fine)
    assert np.array_equal(read_labels(path, image), labels)
    # a slice that lies a little off the image's only one is not lost
    off = AFFINE.copy()
    off[2, 3] += 0.9
    path = _save(tmp_path / "slice.nii.gz", labels[:, :, 2:3], off)
    assert np.array_equal(read_labels(path, Grid((8, 6, 1), AFFINE)), labels[:, :, 2:3])


def test_what_geometry_does_not_explain_is_refused(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.nii.gz", np.zeros((4, 4, 4), np.uint8))
    with pytest.raises(ValueError, match=r"a\.nii\.gz of the shape \(4, 4, 4\).*\(4, 4, 5\)"):
        read_labels(path, Grid((4, 4, 5), AFFINE))
    far = AFFINE.copy()
    far[0, 3] += 100
    assert not read_grid(path).can_move_to(Grid((4, 4, 4), far))
    assert not read_grid(path).can_move_to(Grid((4, 4, 5), None))
    assert read_grid(path).lies_on(Grid((4, 4, 4), None))
    # a file that states no place is believed by its shape
    bare = nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), None)
    nib.save(bare, tmp_path / "bare.nii.gz")
    assert read_grid(tmp_path / "bare.nii.gz").affine is None
    assert read_labels(tmp_path / "bare.nii.gz", Grid((4, 4, 4), AFFINE)).all()


@pytest.mark.parametrize("seed", range(6))
def test_turned_labels_are_moved_without_a_voxel_lost(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 200, (9, 7, 5)).astype(np.uint8)
    affine = np.eye(4)
    affine[:3, :3] = np.linalg.qr(rng.standard_normal((3, 3)))[0] * [0.7, 1.3, 2.5]
    affine[:3, 3] = rng.uniform(-90, 90, 3)
    order, signs = rng.permutation(3), rng.choice([-1, 1], 3)
    step = np.zeros((4, 4))
    step[order, np.arange(3)], step[3, 3] = signs, 1
    step[:3, 3] = [(n - 1) * (step[a, :3].sum() < 0) for a, n in enumerate(labels.shape)]
    turned = labels.transpose(order)[tuple(slice(None, None, s) for s in signs)]
    own, grid = Grid(turned.shape, affine @ step), Grid(labels.shape, affine)
    moved = move_labels(turned, own, grid)
    assert moved.dtype == np.uint8
    assert (moved == labels).all()
    # a part of the image, and one that sticks out of it
    part = move_labels(turned[1:], Grid(turned[1:].shape, affine @ step @ _shifted(1)), grid)
    assert (part[part > 0] == labels[part > 0]).all()
    assert (part > 0).sum() == (turned[1:] > 0).sum()
    wide = np.pad(turned, ((2, 1), (0, 0), (0, 0)), constant_values=77)
    assert (move_labels(wide, Grid(wide.shape, affine @ step @ _shifted(-2)), grid) == labels).all()
    # on half voxels nothing is exact
    assert move_labels(turned, Grid(turned.shape, affine @ step @ _shifted(0.3)), grid).dtype == np.int32


def _shifted(steps: float) -> np.ndarray:
    out = np.eye(4)
    out[0, 3] = steps
    return out
