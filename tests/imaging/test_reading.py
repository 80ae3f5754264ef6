"""Reading every kind of image, and refusing what is none."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from PIL import Image
from pydicom.uid import generate_uid
from segmed.imaging.reading import EXTENSIONS, extension_of, fingerprint, read_volume

AFFINE = np.array([[-0.8, 0, 0, 40], [0, -0.9, 0, 50], [0, 0, 2.5, -30], [0, 0, 0, 1.0]])
PIXEL_AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])


@pytest.fixture
def voxels() -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 1500, (9, 7, 5)).astype(np.int16)


def _save(array: np.ndarray, path: Path, affine: np.ndarray = AFFINE) -> Path:
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


# --- NIfTI ---


@pytest.mark.parametrize("extension", [".nii", ".nii.gz", ".NII.GZ"])
def test_nifti(tmp_path: Path, voxels: np.ndarray, extension: str) -> None:
    path = tmp_path / f"image{extension}"
    _save(voxels, tmp_path / f"image{extension.lower()}").rename(path)
    volume = read_volume(path)
    assert np.array_equal(volume.array, voxels)
    assert volume.array.dtype == np.int16
    assert np.allclose(volume.affine, AFFINE)
    assert volume.spacing == pytest.approx((0.8, 0.9, 2.5))
    assert (volume.shape, volume.modality, volume.source) == ((9, 7, 5), "", str(path))


def test_a_path_may_be_a_string(tmp_path: Path, voxels: np.ndarray) -> None:
    assert np.array_equal(read_volume(str(_save(voxels, tmp_path / "a.nii"))).array, voxels)


def test_nifti_scaling_is_applied(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), AFFINE)
    image.header.set_slope_inter(2, -1024)
    nib.save(image, tmp_path / "scaled.nii")
    raw = nib.Nifti1Image.from_filename(tmp_path / "scaled.nii").dataobj
    volume = read_volume(tmp_path / "scaled.nii")
    assert volume.array.dtype == np.float32
    assert np.array_equal(volume.array, np.asarray(raw))


@pytest.mark.parametrize("shape", [(9, 7, 5, 1), (9, 7, 5, 1, 1)])
def test_trailing_axes_of_length_one_are_dropped(
    tmp_path: Path, shape: tuple[int, ...], voxels: np.ndarray
) -> None:
    volume = read_volume(_save(voxels.reshape(shape), tmp_path / "a.nii.gz"))
    assert np.array_equal(volume.array, voxels)


@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 1)])
def test_a_single_slice_is_a_volume(tmp_path: Path, shape: tuple[int, ...], voxels: np.ndarray) -> None:
    volume = read_volume(_save(voxels[:, :, 0].reshape(shape), tmp_path / "a.nii.gz"))
    assert volume.shape == (9, 7, 1)
    assert np.array_equal(volume.slice(0), voxels[:, :, 0].T)
    with pytest.raises(ValueError, match="Slice 1 does not exist: the image has slices 0 to 0"):
        volume.slice(1)


@pytest.mark.parametrize("shape", [(9, 7, 5, 2), (9, 7, 5, 3), (9, 7, 5, 1, 3)])
def test_four_dimensions_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = _save(np.zeros(shape, np.int16), tmp_path / "series.nii.gz")
    with pytest.raises(ValueError, match=r"series\.nii\.gz has four dimensions .* save one time point"):
        read_volume(path)


def test_four_dimensional_nrrd_is_refused(tmp_path: Path) -> None:
    nrrd.write(str(tmp_path / "a.nrrd"), np.zeros((6, 5, 4, 3), np.int16))
    with pytest.raises(ValueError, match="four dimensions"):
        read_volume(tmp_path / "a.nrrd")


def test_rgb_nifti(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (6, 5, 4, 3)).astype(np.uint8)
    packed = pixels.view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    volume = read_volume(_save(packed, tmp_path / "rgb.nii.gz"))
    assert volume.is_colour
    assert volume.shape == (6, 5, 4)
    assert np.array_equal(volume.array, pixels)


# --- NRRD and pictures ---


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


# --- DICOM ---


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


# --- what is no image ---


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"There is no image at .*nowhere\.nii\.gz"):
        read_volume(tmp_path / "nowhere.nii.gz")


@pytest.mark.parametrize("extension", EXTENSIONS)
@pytest.mark.parametrize(
    "content", [b"", b"\x1f\x8b", np.random.default_rng(5).bytes(4000)], ids=["0", "2", "4000"]
)
def test_random_bytes_are_refused(tmp_path: Path, extension: str, content: bytes) -> None:
    path = tmp_path / f"noise{extension}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"noise\S+ cannot be read: .* Export it again"):
        read_volume(path)


def _cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _damage_middle(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(b ^ 0xFF for b in data[middle : middle + 200]) + data[middle + 200 :]


@pytest.mark.parametrize(
    ("extension", "damage"), [(".nii.gz", _cut), (".nii.gz", _damage_middle), (".nii", _cut), (".nrrd", _cut)]
)
def test_damaged_files_are_refused(tmp_path: Path, extension: str, damage: Callable[[bytes], bytes]) -> None:
    voxels = np.random.default_rng(6).integers(-1000, 1000, (24, 24, 12)).astype(np.int16)
    path = tmp_path / f"image{extension}"
    if extension == ".nrrd":
        nrrd.write(str(path), voxels)
    else:
        _save(voxels, path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"image\.\S+ cannot be read: .* Export it again"):
        read_volume(path)


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (70, struct.pack("<h", 9999)),  # datatype: unknown
        (70, struct.pack("<h", 0)),  # datatype: none
        (40, struct.pack("<4h", 3, -5, 7, 5)),  # dim: negative
        (40, struct.pack("<4h", 3, 32000, 32000, 32000)),  # dim: larger than the file and any memory
        (108, struct.pack("<f", float("nan"))),  # vox_offset
        (108, struct.pack("<f", 1e30)),
        (252, struct.pack("<hh3f", 1, 0, 5, 5, 5)),  # qform: no quaternion
    ],
)
def test_damaged_nifti_headers_are_refused(
    tmp_path: Path, voxels: np.ndarray, offset: int, value: bytes
) -> None:
    path = _save(voxels, tmp_path / "image.nii")
    data = bytearray(path.read_bytes())
    data[offset : offset + len(value)] = value
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"image\.nii cannot be read: .* Export it again"):
        read_volume(path)


@pytest.mark.parametrize("extension", [".nii.gz", ".png"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"page{extension}"
    path.write_text("<html>Sign in first</html>")
    with pytest.raises(ValueError, match=r"page\S+ cannot be read"):
        read_volume(path)


def test_an_unknown_place_in_the_patient_is_refused(tmp_path: Path, voxels: np.ndarray) -> None:
    path = _save(voxels, tmp_path / "image.nii")
    data = bytearray(path.read_bytes())
    data[280:296] = struct.pack("<4f", *[float("nan")] * 4)  # srow_x
    path.write_bytes(data)
    with pytest.raises(ValueError, match="affine is not a finite"):
        read_volume(path)


# --- voxel values ---


def test_voxels_that_are_not_finite_become_the_smallest_finite_value(tmp_path: Path) -> None:
    array = np.arange(60, dtype=np.float32).reshape(5, 4, 3) - 7
    expected = array.copy()
    array[1, 2, 0], array[2, 1, 1], array[4, 3, 2] = np.nan, np.inf, -np.inf
    expected[1, 2, 0] = expected[2, 1, 1] = expected[4, 3, 2] = -7
    volume = read_volume(_save(array, tmp_path / "a.nii.gz"))
    assert np.array_equal(volume.array, expected)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_image_without_finite_voxels_is_refused(tmp_path: Path, value: float) -> None:
    path = _save(np.full((4, 4, 4), value, np.float32), tmp_path / "a.nii.gz")
    with pytest.raises(ValueError, match=r"a\.nii\.gz has no finite voxel"):
        read_volume(path)


def test_a_constant_image_is_read(tmp_path: Path) -> None:
    assert np.array_equal(
        read_volume(_save(np.full((4, 3, 2), 9, np.int16), tmp_path / "a.nii")).array, [[[9] * 2] * 3] * 4
    )


def test_complex_numbers_are_refused(tmp_path: Path) -> None:
    path = _save(np.ones((4, 4, 4), np.complex64), tmp_path / "kspace.nii.gz")
    with pytest.raises(ValueError, match=r"kspace\.nii\.gz holds complex numbers. Save its magnitude"):
        read_volume(path)


def test_doubles_become_floats(tmp_path: Path) -> None:
    array = np.random.default_rng(7).normal(size=(4, 4, 4))
    volume = read_volume(_save(array, tmp_path / "a.nii.gz"))
    assert volume.array.dtype == np.float32
    assert np.allclose(volume.array, array, atol=1e-6)


# --- names ---


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
