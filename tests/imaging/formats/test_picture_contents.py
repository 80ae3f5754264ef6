"""Pictures whose names or headers mislead: read by their contents, and bright where they are meant to be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from segmed.imaging.grid import read_grid
from segmed.imaging.reading import read_volume

GREY = (np.arange(20 * 36).reshape(20, 36) % 251).astype(np.uint8)
SMOOTH = np.tile(np.arange(36) * 4, (20, 1)).astype(np.uint8)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.tif"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF"])
def test_contents_and_not_the_name_say_what_a_picture_is(tmp_path: Path, name: str, kind: str) -> None:
    how: dict[str, Any] = {"JPEG": {"quality": 100}, "WEBP": {"lossless": True}}.get(kind, {})
    Image.fromarray(SMOOTH).save(tmp_path / name, format=kind, **how)
    volume, grid = read_volume(tmp_path / name), read_grid(tmp_path / name)
    found = volume.slice(0).astype(int)
    found = found[..., 0] if volume.is_colour else found
    assert np.abs(found - SMOOTH).max() <= (3 if kind == "JPEG" else 0)
    assert grid.shape == volume.shape == (36, 20, 1)


def test_no_program_is_run_for_a_picture(tmp_path: Path) -> None:
    """Pillow would start Ghostscript."""
    Image.fromarray(GREY).save(tmp_path / "a.png", format="EPS")
    for read in (read_volume, read_grid):
        with pytest.raises(ValueError, match=r"a\.png cannot be read"):
            read(tmp_path / "a.png")


WHITES: dict[str, tuple[np.ndarray, np.ndarray, str | None]] = {  # stored, meant, compression
    "8 bits": (GREY, 255 - GREY, None),
    "8 bits, packed": (GREY, 255 - GREY, "zlib"),
    "8 bits, LZW": (GREY, 255 - GREY, "lzw"),
    "16 bits": (GREY.astype(np.uint16) * 200, 65535 - GREY.astype(np.uint16) * 200, None),
    "16 bits, LZW": (GREY.astype(np.uint16) * 200, 65535 - GREY.astype(np.uint16) * 200, "lzw"),
    "signed": (GREY.astype(np.int16) - 99, 98 - GREY.astype(np.int16), None),
    "floats": (GREY.astype(np.float32), -GREY.astype(np.float32), None),
    "one bit": (GREY > 100, (GREY <= 100) * 255, None),
    "one bit, fax": (GREY > 100, (GREY <= 100) * 255, "group4"),
}


@pytest.mark.parametrize("kind", WHITES)
def test_where_0_is_white_images_are_turned_and_labels_are_as_stored(tmp_path: Path, kind: str) -> None:
    stored, meant, compression = WHITES[kind]
    path = tmp_path / "a.tif"
    if compression in ("lzw", "group4"):  # which tifffile does not write, and Pillow writes with 0 for black
        Image.fromarray(stored).save(path, compression={"lzw": "tiff_lzw"}.get(compression, compression))
        with tifffile.TiffFile(path) as file:
            at = file.pages[0].tags["PhotometricInterpretation"].valueoffset
        content = bytearray(path.read_bytes())
        content[at : at + 2] = bytes(2)
        path.write_bytes(content)
    else:
        tifffile.imwrite(path, stored, photometric="miniswhite", compression=compression)
    assert np.array_equal(read_volume(path).slice(0), meant)
    assert np.array_equal(read_volume(path, labels=True).slice(0), stored)
