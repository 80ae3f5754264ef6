"""PNG, JPEG, BMP and TIFF: palettes, alpha, bits, tiles, pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from corpus.row import Row

_J, _I = 24, 36
_GREY = (np.arange(_J * _I).reshape(_J, _I) % 251).astype(np.uint8)
_DEEP = np.random.default_rng(0).integers(0, 65536, (_J, _I)).astype(np.uint16)
_RGB = np.random.default_rng(1).integers(0, 256, (_J, _I, 3)).astype(np.uint8)
_DEEP_RGB = np.random.default_rng(2).integers(0, 65536, (_J, _I, 3)).astype(np.uint16)
_INDICES = _GREY % 5
_PALETTE = np.array([[0, 0, 0], [255, 0, 0], [0, 200, 0], [0, 0, 150], [90, 90, 10]], np.uint8)
_BITS = _GREY > 100


def rows() -> Iterator[Row]:
    """All of them."""
    yield from _plain()
    yield from _tiff()
    yield from _refused()


def _up(array: np.ndarray) -> np.ndarray:
    """Rows and columns to (I, J, 1) or (I, J, 1, 3)."""
    return np.swapaxes(array, 0, 1)[:, :, None]


def _save(array: np.ndarray, mode: str | None = None, **how: Any) -> Callable[[Path], object]:
    return lambda path: Image.fromarray(array, mode).save(path, **how)


def _palette(path: Path) -> None:
    image = Image.fromarray(_INDICES).convert("P")
    image.putpalette(_PALETTE.ravel().tolist())
    image.putdata(_INDICES.ravel().tolist())
    image.save(path)


def _plain() -> Iterator[Row]:
    for extension in ("png", "bmp", "tif"):
        yield Row(f"grey.{extension}", _save(_GREY), _up(_GREY))
        yield Row(f"colour.{extension}", _save(_RGB), _up(_RGB))
        colours = _up(_PALETTE[_INDICES])
        yield Row(f"palette.{extension}", _palette, colours, labels=_up(_INDICES))
        yield Row(f"one_bit.{extension}", _save(_BITS), _up(_BITS * 255), labels=_up(_BITS * 1))
    for extension in ("png", "tif"):
        yield Row(f"transparent.{extension}", _save(np.dstack([_RGB, _GREY])), _up(_RGB))
        alpha = np.dstack([_GREY, 255 - _GREY])
        yield Row(f"grey_and_alpha.{extension}", _save(alpha, "LA"), _up(_GREY))
    yield Row("deep.png", _save(_DEEP), _up(_DEEP))
    yield Row("UPPER.PNG", _save(_GREY, format="PNG"), _up(_GREY))
    smooth = np.tile(np.linspace(0, 250, _I), (_J, 1)).astype(np.uint8)

    def inks(path: Path) -> None:
        band = Image.fromarray(smooth)
        Image.merge("CMYK", [band, band, band, Image.new("L", band.size)]).save(path, quality=100)

    yield Row("grey.jpg", _save(smooth, quality=100), _up(smooth))
    yield Row("colour.jpeg", _save(np.dstack([smooth] * 3), quality=100), _up(np.dstack([smooth] * 3)))
    yield Row("four_inks.jpg", inks, _up(np.dstack([255 - smooth] * 3)))


def _tiff() -> Iterator[Row]:
    kinds: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
        "tiled": (_GREY, {"tile": (16, 16)}),
        "tiled_deep": (_DEEP, {"tile": (16, 16)}),
        "tiled_colour": (_RGB, {"tile": (16, 16), "photometric": "rgb"}),
        "deep": (_DEEP, {}),
        "deep_colour": (_DEEP_RGB, {"photometric": "rgb"}),
        "planes": (_RGB, {"photometric": "rgb", "planarconfig": "separate"}),
        "double": (_GREY / 4, {}),
        "float": ((_GREY / 4).astype(np.float32), {}),
        "signed": (_GREY.astype(np.int16) - 99, {}),
        "signed_byte": ((_GREY // 2).astype(np.int8) - 40, {}),
        "long": (_GREY.astype(np.uint32) + 70000, {}),
        "big_ends": (_DEEP, {"byteorder": ">"}),
        "big_file": (_DEEP, {"bigtiff": True}),
        "deflated": (_DEEP, {"compression": "zlib"}),
        "predicted": (_DEEP, {"compression": "zlib", "predictor": True}),
        "deflated_tiles": (_DEEP, {"compression": "zlib", "tile": (16, 16)}),
    }
    for name, (array, how) in kinds.items():
        stored = np.moveaxis(array, -1, 0) if name == "planes" else array
        yield Row(f"tiff_{name}.tif", _write(stored, **how), _up(array))
    for name, array in (("lzw", _GREY), ("lzw_deep", _DEEP), ("lzw_colour", _RGB)):
        yield Row(f"tiff_{name}.tiff", _save(array, compression="tiff_lzw"), _up(array))
    yield Row("tiff_fax.tif", _save(_BITS, compression="group4"), _up(_BITS * 255), labels=_up(_BITS * 1))
    yield Row("tiff_packbits.tif", _save(_GREY, compression="packbits"), _up(_GREY))
    stack = np.stack([_GREY, _GREY + 1, _GREY // 2])
    volume = stack.transpose(2, 1, 0)
    yield Row("tiff_pages.tif", _pages(*stack), volume)
    yield Row("tiff_pages_and_thumbnail.tif", _pages(*stack, thumbnail=_GREY[::4, ::4]), volume)
    imagej = _write(stack, imagej=True, metadata={"axes": "ZYX"})
    yield Row("tiff_imagej.tif", imagej, volume)


def _write(array: np.ndarray, **how: Any) -> Callable[[Path], object]:
    return lambda path: tifffile.imwrite(path, array, **{"photometric": "minisblack", **how})


def _pages(*arrays: np.ndarray, thumbnail: np.ndarray | None = None) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        with tifffile.TiffWriter(path) as file:
            for array in arrays:
                file.write(array, photometric="minisblack")
            if thumbnail is not None:
                file.write(thumbnail, photometric="minisblack", subfiletype=1)

    return make


def _refused() -> Iterator[Row]:
    yield Row("tiff_two_sizes.tif", _pages(_GREY, _GREY[:12]), words="differ in size")
    yield Row("tiff_only_thumbnail.tif", _write(_GREY, subfiletype=1), words="thumbnails only")
    five = np.zeros((_J, _I, 5), np.uint8)
    yield Row("tiff_five.tif", _write(five, planarconfig="contig"), words="5 channels of the kind")
    inks = np.zeros((_J, _I, 4), np.uint8)
    yield Row(
        "tiff_inks.tif", _write(inks, photometric="separated"), words="4 channels of the kind SEPARATED"
    )
    channels = _write(np.zeros((3, _J, _I), np.uint8), imagej=True, metadata={"axes": "CYX"})
    yield Row("tiff_channels.tif", channels, words="3 channels")
    times = _write(np.zeros((4, 3, _J, _I), np.uint8), ome=True, metadata={"axes": "TZYX"})
    yield Row("tiff_times.tif", times, words="3 slices × 4 time points")
    for name in ("png", "jpg", "bmp", "tif"):
        yield Row(f"empty.{name}", lambda path: path.write_bytes(b""), words="cannot be read")
        yield Row(
            f"noise.{name}", lambda path: path.write_bytes(bytes(range(256)) * 9), words="cannot be read"
        )

    def cut(path: Path) -> None:
        _save(_DEEP)(path)
        path.write_bytes(path.read_bytes()[:700])

    yield Row("cut_off.png", cut, words="cannot be read")
