"""Headers that name other files: nothing but a complete image of two files beside each other is followed."""

from __future__ import annotations

import bz2
import os
from pathlib import Path

import nrrd
import numpy as np
import pytest
import SimpleITK as sitk
from segmed.imaging.formats.text_headers import check_alone, data_files, nrrd_fields
from segmed.imaging.grid import Grid, read_grid, read_labels
from segmed.imaging.reading import fingerprint, read_volume

SECRET = b"SECRET OF THE SERVER " * 40
NRRD = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 16 16 2\nspacings: 1 1 1\nencoding: raw\nendian: little\n"
META = (
    "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nDimSize = 16 16 2\n"
    "ElementType = MET_UCHAR\n"
)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "elsewhere" / "secret.txt"
    path.parent.mkdir()
    path.write_bytes(SECRET)
    return path


EVIL = {
    "absolute.nrrd": NRRD + "data file: {secret}\n\n",
    "absolute.nhdr": NRRD + "data file: {secret}\n",
    "one word.nrrd": NRRD + "datafile: {secret}\n",
    "upper case.nrrd": NRRD + "DATA FILE: {secret}\n",
    "old line ends.nrrd": (NRRD + "data file: {secret}\n").replace("\n", "\r"),
    "dos.nhdr": (NRRD + "data file: {secret}\n").replace("\n", "\r\n"),
    "dos end before.nrrd": NRRD + "\r\ndata file: {secret}\n",
    "comment before.nrrd": NRRD + "# all is well\rdata file: {secret}\n",
    "list.nhdr": NRRD + "data file: LIST\n{secret}\n",
    "pattern.nhdr": NRRD + "data file: slice%d.raw 1 2 1 2\n",
    "parent.nhdr": NRRD + "data file: ../elsewhere/secret.txt\n",
    "process.nhdr": NRRD + "data file: /proc/self/environ\n",
    "device.nhdr": NRRD + "data file: /dev/zero\n",
    "absolute.mha": META + "ElementDataFile = {secret}\n",
    "absolute.mhd": META + "ElementDataFile = {secret}\n",
    "colon.mha": META + "ElementDataFile: {secret}\n",
    "list.mha": META + "ElementDataFile = LIST\n{secret}\n",
    "pattern.mhd": META + "ElementDataFile = slice%03d.raw 1 2 1\n",
    "decoy.mha": "Comment = ElementDataFile = LOCAL\n" + META + "ElementDataFile = {secret}\n",
    "other kind.mha": NRRD + "data file: {secret}\n",
    "other kind.png": NRRD + "data file: {secret}\n",
    "other kind.tif": NRRD + "data file: {secret}\n",
    "other kind.dcm": NRRD + "data file: {secret}\n",
    "other kind.nii": NRRD + "data file: {secret}\n",
    "other kind.nrrd": META + "ElementDataFile = {secret}\n",
}


@pytest.mark.parametrize("name", EVIL)
def test_no_name_in_a_header_is_followed(tmp_path: Path, secret: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(EVIL[name].format(secret=secret).encode())
    for read in (read_volume, read_grid, lambda p: read_labels(p, Grid((16, 16, 2)))):
        with pytest.raises(ValueError) as refused:
            read(path)
        assert "SECRET" not in str(refused.value) and str(secret) not in str(refused.value)


@pytest.mark.parametrize("name", [name for name in EVIL if name not in ("other kind.nrrd", "decoy.mha")])
def test_uploads_that_name_another_file_are_told_so(tmp_path: Path, secret: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(EVIL[name].format(secret=secret).encode())
    with pytest.raises(ValueError, match="voxels lie in another file"):
        check_alone(path)


def test_whole_files_are_alone(tmp_path: Path) -> None:
    voxels = np.arange(60, dtype=np.uint8).reshape(5, 4, 3)
    nrrd.write(str(tmp_path / "a.nrrd"), voxels, {"note": "data file: nothing"})
    sitk.WriteImage(sitk.GetImageFromArray(voxels), str(tmp_path / "a.mha"))
    for name in ("a.nrrd", "a.mha"):
        check_alone(tmp_path / name)
        assert data_files(tmp_path / name) == ()
        assert read_volume(tmp_path / name).array.size == 60


@pytest.mark.parametrize("extension", [".nhdr", ".mhd"])
def test_a_complete_image_of_two_files_is_read_and_followed_by_its_fingerprint(
    tmp_path: Path, extension: str
) -> None:
    voxels = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    path = tmp_path / f"a{extension}"
    sitk.WriteImage(sitk.GetImageFromArray(voxels), str(path))
    (parts,) = data_files(path)
    assert parts.name in ("a.raw", "a.zraw", "a.raw.gz") and parts.parent == tmp_path
    assert np.array_equal(read_volume(path).array, voxels.transpose(2, 1, 0))
    assert read_grid(path).shape == (5, 4, 3)
    before = fingerprint(path)
    os.utime(parts, ns=(1, 1))
    assert fingerprint(path) != before
    parts.unlink()
    with pytest.raises(ValueError, match=f"The voxels of a{extension} are missing: {parts.name}"):
        read_volume(path)


@pytest.mark.parametrize("kind", ["link", "link to a device", "pipe", "folder"])
def test_only_a_regular_file_beside_its_header_is_read(tmp_path: Path, secret: Path, kind: str) -> None:
    (tmp_path / "studies").mkdir()
    path, raw = tmp_path / "studies" / "a.nhdr", tmp_path / "studies" / "a.raw"
    path.write_text(NRRD + "data file: a.raw\n")
    if kind == "link":
        raw.symlink_to(secret)
    elif kind == "link to a device":
        raw.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(raw)
    else:
        raw.mkdir()
    with pytest.raises(ValueError, match=r"a\.raw is a link out of its folder, or no regular file"):
        read_volume(path)


@pytest.mark.parametrize("name", ["pipe.nii.gz", "pipe.nrrd", "pipe.dcm", "pipe.png", "pipe.mha"])
def test_a_pipe_is_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    for read in (read_volume, read_grid):
        with pytest.raises(ValueError, match="not a regular file"):
            read(tmp_path / name)


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_bzip2_is_unpacked(tmp_path: Path, ends: str) -> None:
    voxels = np.random.default_rng(0).integers(-900, 900, (9, 8, 7)).astype(np.int16)
    header = {
        "space": "left-posterior-superior",
        "space directions": np.diag([1, 2, 3.0]),
        "space origin": [4, 5, 6.0],
    }
    path = tmp_path / "a.nrrd"
    nrrd.write(str(path), voxels, {**header, "encoding": "bzip2"})
    if ends == "\r\n":
        head, _, rest = path.read_bytes().partition(b"\n\n")
        path.write_bytes(head.replace(b"\n", b"\r\n") + b"\r\n\r\n" + rest)
    nrrd.write(str(tmp_path / "b.nrrd"), voxels, {**header, "encoding": "gzip"})
    found, same = read_volume(path), read_volume(tmp_path / "b.nrrd")
    assert np.array_equal(found.array, voxels) and found.array.dtype == np.int16
    assert np.array_equal(found.affine, same.affine)
    grid = read_grid(path)
    assert grid.affine is not None and np.array_equal(grid.affine, same.affine)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"a\.nrrd cannot be read"):
        read_volume(path)


def test_bzip2_cannot_fill_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "bomb.nrrd"
    path.write_bytes((NRRD.replace("raw", "bzip2") + "\n").encode() + bz2.compress(bytes(10**7)))
    assert read_volume(path).array.shape == (16, 16, 2)


def test_fields_of_a_header(tmp_path: Path) -> None:
    nrrd.write(
        str(tmp_path / "a.nrrd"),
        np.zeros((2, 2), np.uint8),
        {"Segment0_Name": "my: organ", "kinds": ["domain"] * 2},
    )
    fields = nrrd_fields(tmp_path / "a.nrrd")
    assert fields["Segment0_Name"] == "my: organ" and fields["kinds"] == "domain domain"


SPELLINGS = {
    "int8": "signed char, int8, int8_t",
    "uint8": "uchar, unsigned char, uint8, uint8_t",
    "int16": "short, short int, signed short, signed short int, int16, int16_t",
    "uint16": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
    "int32": "int, signed int, int32, int32_t",
    "uint32": "uint, unsigned int, uint32, uint32_t",
    "int64": "longlong, long long, long long int, signed long long, signed long long int, int64, int64_t",
    "uint64": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
    "float32": "float",
    "float64": "double",
}


@pytest.mark.parametrize(
    ("kind", "spelling"), [(kind, one) for kind, names in SPELLINGS.items() for one in names.split(", ")]
)
def test_bzip2_takes_all_spellings_of_the_types(tmp_path: Path, kind: str, spelling: str) -> None:
    voxels = np.arange(60, dtype=kind).reshape(5, 4, 3)
    head = f"NRRD0004\ntype: {spelling}\ndimension: 3\nsizes: 3 4 5\nendian: little\nencoding: bzip2\n\n"
    (tmp_path / "a.nrrd").write_bytes(head.encode() + bz2.compress(voxels.tobytes()))
    assert np.array_equal(read_volume(tmp_path / "a.nrrd").array, voxels.T)


@pytest.mark.parametrize("end", ["", "\n"])
@pytest.mark.parametrize("line", ["\n", "\r\n"])
@pytest.mark.parametrize("field", ["data file", "datafile", "DATA FILE"])
@pytest.mark.parametrize("last", [True, False])
def test_bzip2_in_a_file_beside_its_header(
    tmp_path: Path, end: str, line: str, field: str, last: bool
) -> None:
    voxels = np.arange(60, dtype=np.int16).reshape(5, 4, 3)
    named, packed = f"{field}: a.raw.bz2\n", "encoding: bzip2\n"
    head = "NRRD0004\ntype: short\ndimension: 3\nsizes: 3 4 5\nspacings: 1 2 3\nendian: little\n"
    head += (packed + named if last else named + packed) + end
    (tmp_path / "a.nhdr").write_bytes(head.replace("\n", line).encode())
    (tmp_path / "a.raw.bz2").write_bytes(bz2.compress(voxels.tobytes()))
    volume = read_volume(tmp_path / "a.nhdr")
    assert np.array_equal(volume.array, voxels.T) and volume.spacing == (1, 2, 3)
    assert read_grid(tmp_path / "a.nhdr").shape == (3, 4, 5)


@pytest.mark.parametrize("extension", [".mhd", ".nhdr"])
def test_names_with_blanks_are_followed(tmp_path: Path, extension: str) -> None:
    voxels = np.random.default_rng(0).integers(0, 200, (4, 5, 6)).astype(np.uint8)
    path = tmp_path / f"CT chest 2{extension}"
    sitk.WriteImage(sitk.GetImageFromArray(voxels), str(path))
    assert len(list(tmp_path.iterdir())) == 2
    assert np.array_equal(read_volume(path).array, voxels.T)


def test_names_of_segments_in_latin_1(tmp_path: Path) -> None:
    path = tmp_path / "a.nrrd"
    path.write_bytes(NRRD.encode() + "Segment0_Name:=Größe\n\n".encode("latin-1") + bytes(512))
    assert nrrd_fields(path)["Segment0_Name"] == "Größe"
