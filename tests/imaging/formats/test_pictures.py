"""Pictures of odd kinds: as images their colours or grey values, as label maps their indices."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import tifffile
from PIL import Image
from segmed.imaging.grid import Grid, read_grid, read_labels
from segmed.imaging.reading import read_volume

GREY = (np.arange(20 * 36).reshape(20, 36) % 251).astype(np.uint8)
DEEP = np.random.default_rng(0).integers(0, 65536, (20, 36)).astype(np.uint16)
COLOURS = np.random.default_rng(1).integers(0, 256, (20, 36, 3)).astype(np.uint8)
DEEP_COLOURS = np.random.default_rng(2).integers(0, 65536, (20, 36, 3)).astype(np.uint16)
INDICES = GREY % 5
PALETTE = np.array([[0, 0, 0], [255, 0, 0], [0, 200, 0], [0, 0, 150], [90, 90, 10]], np.uint8)


def _palette(path: Path) -> Path:
    image = Image.fromarray(INDICES).convert("P")
    image.putpalette(PALETTE.ravel().tolist())
    image.putdata(INDICES.ravel().tolist())
    image.save(path)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif"])
def test_a_palette_gives_colours_of_images_and_values_of_labels(tmp_path: Path, name: str) -> None:
    path = _palette(tmp_path / name)
    volume = read_volume(path)
    assert volume.is_colour and volume.array.dtype == np.uint8
    assert np.array_equal(volume.slice(0), PALETTE[INDICES])
    assert np.array_equal(read_volume(path, labels=True).slice(0), INDICES)
    assert np.array_equal(read_labels(path, Grid((36, 20, 1)))[:, :, 0].T, INDICES)
    assert read_grid(path).shape == (36, 20, 1)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif"])
def test_one_bit_is_black_and_white_or_no_and_yes(tmp_path: Path, name: str) -> None:
    Image.fromarray(GREY > 100).save(tmp_path / name)
    assert np.array_equal(read_volume(tmp_path / name).slice(0), (GREY > 100) * 255)
    assert np.array_equal(read_volume(tmp_path / name, labels=True).slice(0), GREY > 100)
    assert read_grid(tmp_path / name) == Grid((36, 20, 1), None, 1)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_grey_with_alpha_is_grey(tmp_path: Path, name: str) -> None:
    Image.fromarray(np.stack([GREY, 255 - GREY], -1), "LA").save(tmp_path / name)
    assert np.array_equal(read_volume(tmp_path / name).slice(0), GREY)
    assert read_grid(tmp_path / name).channels == 1


def test_a_print_of_four_inks_is_colour(tmp_path: Path) -> None:
    ramp = Image.fromarray(np.tile(np.linspace(0, 255, 32), (32, 1)).astype(np.uint8))
    Image.merge("CMYK", [ramp, ramp, ramp, Image.new("L", ramp.size)]).save(tmp_path / "a.jpg", quality=100)
    volume = read_volume(tmp_path / "a.jpg")
    assert np.abs(volume.slice(0).astype(int) - (255 - np.asarray(ramp))[..., None]).max() <= 6
    assert read_grid(tmp_path / "a.jpg").channels == 3


TIFFS: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
    "tiled": (GREY, {"tile": (16, 16)}),
    "tiled, 16 bits": (DEEP, {"tile": (16, 16)}),
    "tiled colours": (COLOURS, {"tile": (16, 16), "photometric": "rgb"}),
    "16-bit colours": (DEEP_COLOURS, {"photometric": "rgb"}),
    "planes": (COLOURS, {"photometric": "rgb", "planarconfig": "separate"}),
    "doubles": (GREY / 3, {}),
    "floats": ((GREY / 3).astype(np.float32), {}),
    "signed": (GREY.astype(np.int16) - 99, {}),
    "32 bits": (GREY.astype(np.uint32) + 70000, {}),
    "big ends": (DEEP, {"byteorder": ">"}),
    "big file": (DEEP, {"bigtiff": True}),
    "packed": (DEEP, {"compression": "zlib"}),
    "predicted": (DEEP, {"compression": "zlib", "predictor": True}),
    "transparent": (np.dstack([COLOURS, GREY]), {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
}


@pytest.mark.parametrize("kind", TIFFS)
def test_tiff(tmp_path: Path, kind: str) -> None:
    array, how = TIFFS[kind]
    stored = np.moveaxis(array, -1, 0) if kind == "planes" else array
    tifffile.imwrite(tmp_path / "a.tif", stored, **{"photometric": "minisblack", **how})
    volume, grid = read_volume(tmp_path / "a.tif"), read_grid(tmp_path / "a.tif")
    expected = array[..., :3] if array.ndim == 3 else array
    assert volume.is_colour == (array.ndim == 3)
    assert volume.array.dtype == (np.float32 if array.dtype == np.float64 else array.dtype)
    assert np.allclose(volume.slice(0), expected, rtol=1e-6)
    assert grid.shape == volume.shape and (grid.channels > 1) == volume.is_colour


@pytest.mark.parametrize(
    ("array", "compression", "error"),
    [
        (GREY, "tiff_lzw", 0),
        (DEEP, "tiff_lzw", 0),
        (COLOURS, "tiff_lzw", 0),
        (GREY, "packbits", 0),
        (GREY > 100, "group4", 0),
        (np.tile(np.arange(36) * 4, (20, 1)).astype(np.uint8), "jpeg", 4),
    ],
)
def test_compressed_tiff(tmp_path: Path, array: np.ndarray, compression: str, error: int) -> None:
    Image.fromarray(array).save(tmp_path / "a.tif", compression=compression)
    expected = array * 255 if array.dtype == bool else array
    assert np.abs(read_volume(tmp_path / "a.tif").slice(0).astype(int) - expected).max() <= error


def test_pages_are_slices_and_thumbnails_are_not(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for n in range(3):
            file.write(DEEP + n, photometric="minisblack")
        file.write(DEEP[::4, ::4], photometric="minisblack", subfiletype=1)
    volume = read_volume(tmp_path / "a.tif")
    assert volume.shape == read_grid(tmp_path / "a.tif").shape == (36, 20, 3)
    assert np.array_equal(volume.slice(2), DEEP + 2)


def _pages(path: Path, *arrays: np.ndarray) -> None:
    with tifffile.TiffWriter(path) as file:
        for array in arrays:
            file.write(array, photometric="minisblack")


REFUSED: dict[str, tuple[Any, str]] = {
    "pages of two sizes": (
        lambda p: _pages(p, GREY, GREY[:10]),
        r"pages of a\.tif differ in size \(36 × 10 and 36 × 20",
    ),
    "five channels": (
        lambda p: tifffile.imwrite(
            p, np.zeros((20, 36, 5), np.uint8), photometric="minisblack", planarconfig="contig"
        ),
        "5 channels of the kind MINISBLACK",
    ),
    "channels of a microscope": (
        lambda p: tifffile.imwrite(
            p, np.zeros((2, 3, 20, 36), np.uint8), imagej=True, metadata={"axes": "ZCYX"}
        ),
        "2 slices|3 channels",
    ),
    "two channels of a microscope": (
        lambda p: tifffile.imwrite(p, np.zeros((2, 20, 36), np.uint8), imagej=True, metadata={"axes": "CYX"}),
        "2 channels",
    ),
    "times of a microscope": (
        lambda p: tifffile.imwrite(
            p, np.zeros((4, 3, 20, 36), np.uint8), ome=True, metadata={"axes": "TZYX"}
        ),
        "3 slices × 4 time points",
    ),
    "only a thumbnail": (
        lambda p: tifffile.imwrite(p, GREY, photometric="minisblack", subfiletype=1),
        "thumbnails only",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_tiff_that_is_no_image_is_refused_for_the_true_reason(tmp_path: Path, kind: str) -> None:
    make, words = REFUSED[kind]
    make(tmp_path / "a.tif")
    for read in (read_volume, read_grid):
        with pytest.raises(ValueError, match=words):
            read(tmp_path / "a.tif")


def test_no_file_is_opened_that_a_description_names(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    tifffile.imwrite(tmp_path / "secret.ome.tif", np.full((20, 36), 77, np.uint8), metadata={"axes": "YX"})
    text = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image '
        'ID="Image:0">'
        '<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="36" SizeY="20" SizeZ="2" SizeC="1" '
        'SizeT="1">'
        '<TiffData IFD="0" PlaneCount="1"/><TiffData FirstZ="1" IFD="0" PlaneCount="1"><UUID FileName="'
        f'{tmp_path / "secret.ome.tif"}">urn:uuid:1</UUID></TiffData></Pixels></Image></OME>'
    )
    tifffile.imwrite(
        tmp_path / "x" / "a.tif", GREY, photometric="minisblack", description=text, metadata=None
    )
    assert np.array_equal(read_volume(tmp_path / "x" / "a.tif").array[:, :, 0].T, GREY)


# --- names that promise another packing ---


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("name", ["plain.nii.gz", "packed.nii", "PLAIN.NII.GZ"])
def test_nifti_is_read_whatever_its_name_promises(tmp_path: Path, kind: type, name: str) -> None:
    voxels, affine = np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.diag([2.0, 3, 4, 1])
    content = kind(voxels, affine).to_bytes()  # type: ignore[attr-defined]
    (tmp_path / name).write_bytes(gzip.compress(content) if name == "packed.nii" else content)
    volume = read_volume(tmp_path / name)
    assert np.array_equal(volume.array, voxels) and np.allclose(volume.affine, affine)
    assert read_grid(tmp_path / name).shape == (3, 4, 5)


def test_a_pair_of_header_and_voxels_is_read_where_it_is_named(tmp_path: Path) -> None:
    voxels = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    nib.save(nib.Nifti1Pair(voxels, np.eye(4)), tmp_path / "a.img")
    for name in ("a.img", "a.hdr"):
        assert np.array_equal(read_volume(tmp_path / name).array, voxels)


def test_files_of_unknown_kinds_are_refused(tmp_path: Path) -> None:
    for name in ("a.vtk", "a.gipl", "a.txt", "a"):
        (tmp_path / name).write_bytes(b"# vtk DataFile Version 3.0\nno image\nBINARY\n" * 9)
        for read in (read_volume, read_grid):
            with pytest.raises(ValueError, match=f"The image {name} cannot be read: its kind is not known"):
                read(tmp_path / name)
