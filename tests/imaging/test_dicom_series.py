"""Slices of DICOM series lie in the order of their positions; gaps and mixed series are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from nifti_files import AFFINE
from pydicom.uid import generate_uid
from segmed.imaging.reading import read_volume


def test_dicom_series(tmp_path: Path, voxels: np.ndarray, write_series: Callable[..., list[Path]]) -> None:
    names = ["IM9.dcm", "IM2.dcm", "zz.dcm", "IM30.dcm", "IM4"]  # neither in order nor without gaps
    write_series(tmp_path / "ct", voxels, AFFINE, names, slope=2, intercept=-1024)
    (tmp_path / "ct" / "notes.txt").write_text("not an image")
    volume = read_volume(tmp_path / "ct")
    assert volume.modality == "CT"
    assert np.array_equal(volume.array, voxels * 2.0 - 1024)
    assert np.allclose(volume.affine, AFFINE, atol=1e-4)


def test_slices_given_from_top_to_bottom_are_sorted_by_position(
    tmp_path: Path, voxels: np.ndarray, write_series: Callable[..., list[Path]]
) -> None:
    affine = AFFINE @ np.diag([1, 1, -1, 1])
    write_series(tmp_path / "ct", voxels, affine)
    volume = read_volume(tmp_path / "ct")
    for k in range(5):
        there = volume.affine @ [0, 0, k, 1]
        stored = round(float((np.linalg.inv(affine) @ there)[2]))
        assert np.allclose(affine @ [0, 0, stored, 1], there, atol=1e-3)
        assert np.array_equal(volume.array[:, :, k], voxels[:, :, stored])


def _drop(paths: list[Path]) -> None:
    paths[3].unlink()


def _shorten(paths: list[Path]) -> None:
    paths[3].write_bytes(paths[3].read_bytes()[:-40])


def _repeat(paths: list[Path]) -> None:
    data = pydicom.dcmread(paths[3])
    data.SOPInstanceUID = generate_uid()
    data.save_as(paths[3].with_name("again.dcm"))


@pytest.mark.parametrize("damage", [_drop, _shorten, _repeat])
def test_a_series_with_a_gap_or_a_repeated_slice_is_refused_or_in_place(
    tmp_path: Path, damage: Callable[[list[Path]], None], write_series: Callable[..., list[Path]]
) -> None:
    voxels = np.random.default_rng(8).integers(0, 1000, (9, 7, 8)).astype(np.int16)
    damage(write_series(tmp_path / "ct", voxels, AFFINE))
    try:
        volume = read_volume(tmp_path / "ct")
    except ValueError as error:
        assert "ct" in str(error)
        return
    for k in range(volume.shape[2]):
        stored = next(s for s in range(8) if np.array_equal(voxels[:, :, s], volume.array[:, :, k]))
        assert np.allclose(volume.affine @ [0, 0, k, 1], AFFINE @ [0, 0, stored, 1], atol=0.1), f"slice {k}"


def test_a_tilted_gantry_is_refused_or_in_place(
    tmp_path: Path, write_series: Callable[..., list[Path]]
) -> None:
    """Slices that shift in their own plane from one to the next."""
    voxels = np.random.default_rng(9).integers(0, 1000, (9, 7, 8)).astype(np.int16)
    affine = AFFINE.copy()
    affine[1, 2] = 0.6
    write_series(tmp_path / "ct", voxels, affine)
    try:
        volume = read_volume(tmp_path / "ct")
    except ValueError as error:
        assert "ct" in str(error)
        return
    assert np.allclose(volume.affine, affine, atol=0.01)


def test_one_dicom_file(tmp_path: Path, voxels: np.ndarray, write_series: Callable[..., list[Path]]) -> None:
    path = write_series(tmp_path / "mr", voxels[:, :, :1], AFFINE, modality="MR")[0]
    volume = read_volume(path)
    assert (volume.shape, volume.modality) == ((9, 7, 1), "MR")
    assert np.array_equal(volume.array, voxels[:, :, :1])
    assert np.allclose(volume.affine[:, :2], AFFINE[:, :2], atol=1e-4)
    assert np.allclose(volume.affine[:, 3], AFFINE[:, 3], atol=1e-4)


def test_two_series_are_refused(
    tmp_path: Path, voxels: np.ndarray, write_series: Callable[..., list[Path]]
) -> None:
    for part in ("a", "b"):
        write_series(tmp_path / "mixed", voxels, AFFINE, [f"{part}{k}.dcm" for k in range(5)])
    with pytest.raises(ValueError, match=r"folder mixed holds 2 DICOM series.*folder of its own"):
        read_volume(tmp_path / "mixed")


def test_a_folder_without_dicom_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="folder empty holds no DICOM series"):
        read_volume(tmp_path / "empty")


def test_radiographs_with_white_as_the_lowest_value(
    tmp_path: Path, write_series: Callable[..., list[Path]]
) -> None:
    stored = np.arange(8 * 6, dtype=np.int16).reshape(8, 6, 1) * 10 + 5
    affine = np.diag([-1.0, -1.0, 2.0, 1.0])
    paths = write_series(tmp_path / "xray", stored, affine, modality="DX")
    plain = read_volume(tmp_path / "xray").array
    data = pydicom.dcmread(paths[0])
    data.PhotometricInterpretation = "MONOCHROME1"
    data.save_as(paths[0])
    for path in (tmp_path / "xray", paths[0]):
        assert (np.diff(read_volume(path).array.ravel()) == -np.diff(plain.ravel())).all()
