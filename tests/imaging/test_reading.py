"""NIfTI, NRRD and pictures are read as volumes with their voxel values, axes and place in the patient."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest
import SimpleITK as sitk
from nifti_files import AFFINE, save_nifti
from PIL import Image
from segmed.imaging.grid import read_grid, read_labels
from segmed.imaging.reading import extension_of, fingerprint, read_volume

PIXEL_AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])


@pytest.mark.parametrize("extension", [".nii", ".nii.gz", ".NII.GZ"])
def test_nifti(tmp_path: Path, voxels: np.ndarray, extension: str) -> None:
    path = tmp_path / f"image{extension}"
    save_nifti(voxels, tmp_path / f"image{extension.lower()}").rename(path)
    volume = read_volume(path)
    assert np.array_equal(volume.array, voxels)
    assert volume.array.dtype == np.int16
    assert np.allclose(volume.affine, AFFINE)
    assert volume.spacing == pytest.approx((0.8, 0.9, 2.5))
    assert (volume.shape, volume.modality, volume.source) == ((9, 7, 5), "", str(path))


def test_a_path_may_be_a_string(tmp_path: Path, voxels: np.ndarray) -> None:
    assert np.array_equal(read_volume(str(save_nifti(voxels, tmp_path / "a.nii"))).array, voxels)


def test_nifti_scaling_is_applied(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), AFFINE)
    image.header.set_slope_inter(2, -1024)
    nib.save(image, tmp_path / "scaled.nii")
    raw = nib.Nifti1Image.from_filename(tmp_path / "scaled.nii").dataobj
    volume = read_volume(tmp_path / "scaled.nii")
    assert volume.array.dtype == np.float32
    assert np.array_equal(volume.array, np.asarray(raw))


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_an_intercept_that_is_no_number_counts_as_0(tmp_path: Path, voxels: np.ndarray, kind: type) -> None:
    image = kind(voxels, AFFINE)
    nib.save(image, tmp_path / "a.nii")
    with (tmp_path / "a.nii").open("r+b") as file:
        two = kind is nib.Nifti2Image
        file.seek(176 if two else 112)
        file.write(struct.pack("<2d" if two else "<2f", 2, float("nan")))
    assert np.array_equal(read_volume(tmp_path / "a.nii").array, 2.0 * voxels)


@pytest.mark.parametrize("shape", [(9, 7, 5, 1), (9, 7, 5, 1, 1)])
def test_trailing_axes_of_length_one_are_dropped(
    tmp_path: Path, shape: tuple[int, ...], voxels: np.ndarray
) -> None:
    volume = read_volume(save_nifti(voxels.reshape(shape), tmp_path / "a.nii.gz"))
    assert np.array_equal(volume.array, voxels)


@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 1)])
def test_a_single_slice_is_a_volume(tmp_path: Path, shape: tuple[int, ...], voxels: np.ndarray) -> None:
    volume = read_volume(save_nifti(voxels[:, :, 0].reshape(shape), tmp_path / "a.nii.gz"))
    assert volume.shape == (9, 7, 1)
    assert np.array_equal(volume.slice(0), voxels[:, :, 0].T)
    with pytest.raises(ValueError, match="Slice 1 does not exist: the image has slices 0 to 0"):
        volume.slice(1)


@pytest.mark.parametrize("shape", [(9, 7, 5, 2), (9, 7, 5, 3), (9, 7, 5, 1, 3)])
def test_four_dimensions_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = save_nifti(np.zeros(shape, np.int16), tmp_path / "series.nii.gz")
    with pytest.raises(ValueError, match=r"series\.nii\.gz has four dimensions .* save one time point"):
        read_volume(path)


def test_four_dimensional_nrrd_is_refused(tmp_path: Path) -> None:
    nrrd.write(str(tmp_path / "a.nrrd"), np.zeros((6, 5, 4, 3), np.int16))
    with pytest.raises(ValueError, match="four dimensions"):
        read_volume(tmp_path / "a.nrrd")


def test_rgb_nifti(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (6, 5, 4, 3)).astype(np.uint8)
    packed = pixels.view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    volume = read_volume(save_nifti(packed, tmp_path / "rgb.nii.gz"))
    assert volume.is_colour
    assert volume.shape == (6, 5, 4)
    assert np.array_equal(volume.array, pixels)


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
def test_nrrd(tmp_path: Path, voxels: np.ndarray, encoding: str) -> None:
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ AFFINE
    header = {
        "space": "left-posterior-superior",
        "space directions": lps[:3, :3].T,
        "space origin": lps[:3, 3],
        "encoding": encoding,
    }
    nrrd.write(str(tmp_path / "a.nrrd"), voxels, header)
    volume = read_volume(tmp_path / "a.nrrd")
    assert np.array_equal(volume.array, voxels)
    assert np.allclose(volume.affine, AFFINE)


def test_grey_png(tmp_path: Path) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (7, 11)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    volume = read_volume(tmp_path / "a.png")
    assert volume.shape == (11, 7, 1)
    assert volume.array.dtype == np.uint8
    assert volume.array[10, 2, 0] == pixels[2, 10]
    assert np.array_equal(volume.slice(0), pixels)
    assert np.allclose(volume.affine, PIXEL_AFFINE)


@pytest.mark.parametrize("channels", [3, 4])
def test_colour_png_without_alpha(tmp_path: Path, channels: int) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (7, 11, channels)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    volume = read_volume(tmp_path / "a.png")
    assert volume.is_colour
    assert volume.array.shape == (11, 7, 1, 3)
    assert np.array_equal(volume.slice(0), pixels[..., :3])


def test_two_channels_are_refused(tmp_path: Path) -> None:
    sitk.WriteImage(
        sitk.GetImageFromArray(np.zeros((5, 7, 11, 2), np.float32), isVector=True), str(tmp_path / "a.mha")
    )
    with pytest.raises(ValueError, match=r"a\.mha has 2 channels; SegMed takes grey or RGB images"):
        read_volume(tmp_path / "a.mha")


@pytest.mark.parametrize("extension", ["jpg", "jpeg"])
def test_jpeg(tmp_path: Path, extension: str) -> None:
    ramp = np.tile(np.linspace(0, 255, 48), (32, 1)).astype(np.uint8)
    Image.fromarray(ramp).save(tmp_path / f"a.{extension}", quality=95)
    volume = read_volume(tmp_path / f"a.{extension}")
    assert volume.shape == (48, 32, 1)
    assert np.abs(volume.slice(0).astype(int) - ramp).max() <= 4


def test_sixteen_bit_tiff_and_png(tmp_path: Path) -> None:
    pixels = np.random.default_rng(4).integers(0, 65536, (7, 11)).astype(np.uint16)
    for name in ("a.tif", "a.tiff", "a.png"):
        Image.fromarray(pixels).save(tmp_path / name)
        volume = read_volume(tmp_path / name)
        assert volume.array.dtype == np.uint16
        assert np.array_equal(volume.slice(0), pixels)


def test_voxels_that_are_not_finite_become_the_smallest_finite_value(tmp_path: Path) -> None:
    array = np.arange(60, dtype=np.float32).reshape(5, 4, 3) - 7
    expected = array.copy()
    array[1, 2, 0], array[2, 1, 1], array[4, 3, 2] = np.nan, np.inf, -np.inf
    expected[1, 2, 0] = expected[2, 1, 1] = expected[4, 3, 2] = -7
    volume = read_volume(save_nifti(array, tmp_path / "a.nii.gz"))
    assert np.array_equal(volume.array, expected)


def test_voxels_of_labels_that_are_not_finite_are_background(tmp_path: Path) -> None:
    labels = np.full((5, 4, 3), np.nan, np.float32)
    labels[1, 1, 1], labels[2, 2, 2], labels[3, 3, 1] = 1, 2, np.inf
    path = save_nifti(labels, tmp_path / "a.nii.gz")
    expected = np.where(np.isfinite(labels), labels, 0)
    assert np.array_equal(read_volume(path, labels=True).array, expected)
    assert np.array_equal(read_labels(path, read_grid(path)), expected)


@pytest.mark.parametrize("dark", [1e302, 0.0])
def test_numbers_beyond_floats_are_named_where_they_are_the_image(tmp_path: Path, dark: float) -> None:
    array = np.full((4, 3, 2), dark)
    array[1] = 3e302
    path = save_nifti(array, tmp_path / "a.nii.gz")
    with pytest.raises(ValueError, match=r"values such as [13]e\+302, and numbers are read up to 3\.4e\+38"):
        read_volume(path)


def test_a_mark_beyond_floats_for_no_data_is_background(tmp_path: Path) -> None:
    array = np.arange(24.0).reshape(4, 3, 2) - 5
    array[0, 0, 0] = np.finfo(float).max
    assert read_volume(save_nifti(array, tmp_path / "a.nii.gz")).array[0, 0, 0] == -4


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_image_without_finite_voxels_is_refused(tmp_path: Path, value: float) -> None:
    path = save_nifti(np.full((4, 4, 4), value, np.float32), tmp_path / "a.nii.gz")
    with pytest.raises(ValueError, match=r"a\.nii\.gz has no finite voxel"):
        read_volume(path)


def test_a_constant_image_is_read(tmp_path: Path) -> None:
    assert np.array_equal(
        read_volume(save_nifti(np.full((4, 3, 2), 9, np.int16), tmp_path / "a.nii")).array,
        [[[9] * 2] * 3] * 4,
    )


def test_complex_numbers_are_refused(tmp_path: Path) -> None:
    path = save_nifti(np.ones((4, 4, 4), np.complex64), tmp_path / "kspace.nii.gz")
    with pytest.raises(ValueError, match=r"kspace\.nii\.gz holds complex numbers. Save its magnitude"):
        read_volume(path)


def test_doubles_become_floats(tmp_path: Path) -> None:
    array = np.random.default_rng(7).normal(size=(4, 4, 4))
    volume = read_volume(save_nifti(array, tmp_path / "a.nii.gz"))
    assert volume.array.dtype == np.float32
    assert np.allclose(volume.array, array, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "extension"),
    [
        ("a.nii.gz", ".nii.gz"),
        ("a.NII", ".nii"),
        ("some.where/b.nrrd", ".nrrd"),
        ("a.gz", ""),
        (".nii.gz", ""),
        ("folder.png/file", ""),
        ("a", ""),
    ],
)
def test_extension_of(name: str, extension: str) -> None:
    assert extension_of(name) == extension


def test_fingerprint_follows_the_file_and_the_parts_of_a_folder(tmp_path: Path) -> None:
    part = tmp_path / "series" / "1.dcm"
    part.parent.mkdir()
    part.write_bytes(b"one")
    before = fingerprint(part), fingerprint(part.parent)
    assert before == (fingerprint(str(part)), fingerprint(str(part.parent)))
    assert before[0] != before[1]
    os.utime(part, ns=(1, 1))
    after = fingerprint(part), fingerprint(part.parent)
    assert after[0] != before[0]
    assert after[1] != before[1]
    (part.parent / "2.dcm").write_bytes(b"two")
    assert fingerprint(part.parent) != after[1]
