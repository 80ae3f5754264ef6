"""Missing, damaged and foreign files are refused with the name of the file and a remedy."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import nrrd
import numpy as np
import pytest
from nifti_files import save_nifti
from PIL import Image
from segmed.imaging.reading import EXTENSIONS, read_volume


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
        save_nifti(voxels, path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"image\.\S+ cannot be read: .* Export it again"):
        read_volume(path)


def _wrong_checksum(data: bytes) -> bytes:
    return data[:-8] + bytes(b ^ 0xFF for b in data[-8:-4]) + data[-4:]


@pytest.mark.parametrize("damage", [_wrong_checksum, lambda data: data[:-6], lambda data: data[:-8]])
@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii"])
def test_the_end_of_compressed_files_is_checked(
    tmp_path: Path, voxels: np.ndarray, damage: Callable[[bytes], bytes], name: str
) -> None:
    whole = save_nifti(voxels, tmp_path / "whole.nii.gz").read_bytes()
    (tmp_path / name).write_bytes(damage(whole))
    with pytest.raises(ValueError, match=r"it is cut off or damaged, as its compressed .* checksum"):
        read_volume(tmp_path / name)


@pytest.mark.parametrize("behind", [bytes(512), b"signature", gzip.compress(bytes(2**23))])
def test_what_follows_a_complete_compressed_file_is_ignored(
    tmp_path: Path, voxels: np.ndarray, behind: bytes
) -> None:
    path = save_nifti(voxels, tmp_path / "a.nii.gz")
    path.write_bytes(path.read_bytes() + behind)
    assert np.array_equal(read_volume(path).array, voxels)


@pytest.mark.parametrize("left", [0.5, 0.98])
@pytest.mark.parametrize(("name", "mode"), [("a.jpg", "L"), ("a.jpeg", "RGB"), ("a.png", "L")])
def test_a_jpeg_that_is_cut_off_is_refused(tmp_path: Path, name: str, mode: str, left: float) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (60, 80)).astype(np.uint8)
    path = tmp_path / name
    Image.fromarray(pixels).convert(mode).save(path, format="JPEG")
    assert read_volume(path).shape == (80, 60, 1)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * left)])
    with pytest.raises(ValueError, match=rf"{name} cannot be read"):
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
        (108, struct.pack("<f", 0)),  # the voxels would begin at the header
        (252, struct.pack("<hh3f", 1, 0, 5, 5, 5)),  # qform: no quaternion
    ],
)
def test_damaged_nifti_headers_are_refused(
    tmp_path: Path, voxels: np.ndarray, offset: int, value: bytes
) -> None:
    path = save_nifti(voxels, tmp_path / "image.nii")
    data = bytearray(path.read_bytes())
    data[offset : offset + len(value)] = value
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"image\.nii cannot be read: .* (Export it again|in 3D Slicer)"):
        read_volume(path)


@pytest.mark.parametrize("extension", [".nii.gz", ".png"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"page{extension}"
    path.write_text("<html>Sign in first</html>")
    with pytest.raises(ValueError, match=r"page\S+ cannot be read"):
        read_volume(path)


def test_an_unknown_place_in_the_patient_is_refused(tmp_path: Path, voxels: np.ndarray) -> None:
    path = save_nifti(voxels, tmp_path / "image.nii")
    data = bytearray(path.read_bytes())
    data[280:296] = struct.pack("<4f", *[float("nan")] * 4)  # srow_x
    path.write_bytes(data)
    with pytest.raises(ValueError, match="affine is not a finite"):
        read_volume(path)
