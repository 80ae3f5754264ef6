"""Files that are small and claim to be huge are refused by their headers, at once and without the memory for
them."""

from __future__ import annotations

import gzip
import resource
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile
from segmed.imaging.formats.limits import most_voxels, set_most_voxels, usual_most_voxels
from segmed.imaging.formats.seg_nrrd import read_segments
from segmed.imaging.grid import read_grid
from segmed.imaging.reading import read_volume

WriteSeries = Callable[..., list[Path]]
HUGE = 30_000  # voxels along two axes: 900 million


@pytest.fixture(autouse=True)
def _usual() -> Iterator[None]:
    yield
    set_most_voxels(None)


def _nifti(path: Path) -> None:
    header = nib.Nifti1Header()
    header.set_data_dtype(np.float64)
    header.set_data_shape((1024, 1024, 1024))
    header["vox_offset"] = 352
    data = header.binaryblock + b"\0" * 4
    path.write_bytes(gzip.compress(data + b"\0" * 2**20) if path.suffix == ".gz" else data + b"\0" * 100)


def _nrrd(path: Path) -> None:
    head = f"NRRD0004\ntype: short\ndimension: 3\nsizes: {HUGE} {HUGE} 4\nencoding: gzip\nendian: little\n\n"
    path.write_bytes(head.encode() + gzip.compress(b"\0" * 2**20))


def _layered(path: Path) -> None:
    head = (
        f"NRRD0004\ntype: uchar\ndimension: 4\nsizes: 9 {HUGE} {HUGE} 4\nkinds: list domain domain domain\n"
    )
    head += "encoding: gzip\nSegment0_ID:=a\nSegment0_LabelValue:=1\nSegment0_Layer:=0\nSegment0_Name:=a\n\n"
    path.write_bytes(head.encode() + gzip.compress(b"\0" * 2**20))


def _meta(path: Path) -> None:
    head = (
        f"ObjectType = Image\nNDims = 3\nCompressedData = True\nDimSize = {HUGE} {HUGE} 4\nElementType = "
        f"MET_SHORT\n"
    )
    path.write_bytes(f"{head}ElementDataFile = LOCAL\n".encode() + zlib.compress(b"\0" * 2**20))


def _png(path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", HUGE, HUGE, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 2**20)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def _bmp(path: Path) -> None:
    info = struct.pack("<IiiHHIIiiII", 40, HUGE, HUGE, 1, 24, 0, 0, 0, 0, 0, 0)
    path.write_bytes(b"BM" + struct.pack("<IHHI", 54 + 1000, 0, 0, 54) + info + b"\0" * 1000)


def _tiff(path: Path) -> None:
    tifffile.imwrite(
        path, shape=(HUGE, HUGE), dtype=np.uint8, tile=(16_384, 16_384), compression="zlib", data=_tiles()
    )


def _tiles() -> Iterator[bytes]:
    for _ in range(4):
        yield zlib.compress(b"\0" * 16_384**2, 1)


BOMBS: dict[str, Callable[[Path], None]] = {
    "bomb.nii.gz": _nifti,
    "bomb.nii": _nifti,
    "bomb.nrrd": _nrrd,
    "bomb.seg.nrrd": _layered,
    "bomb.mha": _meta,
    "bomb.png": _png,
    "bomb.bmp": _bmp,
    "bomb.tif": _tiff,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_by_its_header(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    BOMBS[name](path)
    assert path.stat().st_size < 10 * 2**20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read = read_segments if name.endswith(".seg.nrrd") else read_volume
    with pytest.raises(ValueError, match=r"by its header|is cut off") as caught:
        read(path)
    assert "max_voxels" in str(caught.value) or "cut off" in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 2**10  # KiB


def test_so_is_a_dicom_series(tmp_path: Path, write_series: WriteSeries) -> None:
    write_series(tmp_path / "ct", np.zeros((10, 12, 4), np.int16), np.eye(4))
    set_most_voxels(10 * 12 * 4 - 1)
    with pytest.raises(ValueError, match="10 x 12 x 4 voxels by its header"):
        read_volume(tmp_path / "ct")
    with pytest.raises(ValueError, match="10 x 12 x 4 voxels by its header"):
        read_grid(tmp_path / "ct")
    set_most_voxels(10 * 12 * 4)
    assert read_volume(tmp_path / "ct").shape == (10, 12, 4)


def test_the_limit_is_a_setting(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros((5, 6, 7), np.int16), np.eye(4)), tmp_path / "a.nii.gz")
    assert read_volume(tmp_path / "a.nii.gz").shape == (5, 6, 7)
    set_most_voxels(209)
    with pytest.raises(ValueError, match="at most 209 are read"):
        read_volume(tmp_path / "a.nii.gz")
    with pytest.raises(ValueError, match="1 or more"):
        set_most_voxels(0)
    set_most_voxels(None)
    assert most_voxels() == usual_most_voxels() >= 2**25
