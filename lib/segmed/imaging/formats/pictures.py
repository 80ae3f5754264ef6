"""Reads PNG, JPEG, BMP and TIFF files: grey values, colours or palette indices as the file states them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import tifffile
from PIL import Image, ImageSequence

from segmed.imaging.formats.faults import ImageFault
from segmed.imaging.formats.limits import check_size

PICTURE_EXTENSIONS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_TIFF = "TIFFImageIO"
_ITK = {
    b"\x89PNG": "PNGImageIO", b"\xff\xd8": "JPEGImageIO", b"BM": "BMPImageIO",
    b"II*\0": _TIFF, b"MM\0*": _TIFF, b"II+\0": _TIFF, b"MM\0+": _TIFF,
}  # fmt: skip
_PLAIN = ("PNG", "JPEG", "BMP", "GIF", "WEBP")  # Pillow would run other programs for some of its others
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType
_BILEVEL = "1"
Image.MAX_IMAGE_PIXELS = None  # `check_size` is stricter, and its message says what to do


@dataclass(frozen=True)
class PictureFacts:
    """Facts from the header of a picture.

    Attributes:
        shape: Shape (I, J, K); K is the number of pages of a TIFF file.
        channels: 1 for grey values and palette indices, 3 or 4 for colours.
    """

    shape: tuple[int, int, int]
    channels: int


def itk_kind(path: Path) -> str:
    """The name of ITK's reader for a picture by its first bytes, as names mislead; "" if it has none."""
    with path.open("rb") as file:
        start = file.read(4)
    return next((kind for magic, kind in _ITK.items() if start.startswith(magic)), "")


def picture_facts(path: Path) -> PictureFacts:
    """Size and channels by the header.

    Raises:
        ImageFault: The pages or channels do not form an image.
        Exception: Any exception that the libraries raise for damaged files.
    """
    if itk_kind(path) == _TIFF:
        with tifffile.TiffFile(path) as file:
            pages = _pages(file, path.name)
            page = pages[0]
            return PictureFacts((page.imagewidth, page.imagelength, len(pages)), _channels(page, path.name))
    with Image.open(path, formats=_PLAIN) as image:
        return PictureFacts((*image.size, 1), Image.getmodebands(_plain(image.mode)))


def read_picture(path: Path, indices: bool = False) -> tuple[np.ndarray, bool]:
    """The voxels of a picture.

    Args:
        path: Path of a file with one of `PICTURE_EXTENSIONS`; its contents say which kind it is.
        indices: Whether to return, as for label maps, the palette index of each pixel, 0 and 1 for one-bit
            pictures, and values as stored where 0 is white; otherwise colours, 0 and 255, and 0 for black.

    Returns:
        Voxels (I, J, K) or (I, J, K, 3), and whether they are colours.

    Raises:
        ImageFault: The pages, channels or compression cannot be read.
        Exception: Any exception that the libraries raise for damaged files.
    """
    if itk_kind(path) == _TIFF:
        array = _read_tiff(path, indices)
    else:
        array = _read_plain(path, indices)
    # (K, J, I[, C]) to (I, J, K[, C])
    colour = array.ndim == 4
    array = array.transpose(2, 1, 0, 3)[..., :3] if colour else array.transpose(2, 1, 0)
    return array, colour


def _read_plain(path: Path, indices: bool) -> np.ndarray:
    """(1, J, I) or (1, J, I, C) by ITK, which keeps the bit depth, or by Pillow where ITK misreads."""
    kind = itk_kind(path)
    with Image.open(path, formats=_PLAIN) as image:
        check_size(image.size, path.name)
        grey_palette = image.mode == "L" and kind == "BMPImageIO"  # ITK makes colours of it
        if kind and image.mode in ("L", "RGB", "RGBA", "I", "I;16", "I;16B") and not grey_palette:
            if kind == "JPEGImageIO":
                image.load()  # raises for a file that is cut off, of which ITK makes the rest grey
            image.close()
            return _by_itk(path, kind)
        return _by_pillow(image, indices)[None]


def _by_itk(path: Path, kind: str) -> np.ndarray:
    reader = sitk.ImageFileReader()
    reader.SetImageIO(kind)
    reader.SetFileName(str(path))
    image = reader.Execute()
    array = sitk.GetArrayFromImage(image)
    return np.asarray(array if image.GetDimension() == 3 else array[None])


def _by_pillow(image: Image.Image, indices: bool) -> np.ndarray:
    if indices and image.mode in ("P", "PA"):
        return np.asarray(image.getchannel("P") if image.mode == "PA" else image)
    if indices and image.mode == _BILEVEL:
        return np.asarray(image).astype(np.uint8)
    return np.asarray(image.convert(_plain(image.mode)))


def _plain(mode: str) -> str:
    """The mode without palette, alpha of grey, or the inks of a printer."""
    changed = {
        "P": "RGB",
        "PA": "RGB",
        "CMYK": "RGB",
        "YCbCr": "RGB",
        "LAB": "RGB",
        "HSV": "RGB",
        "RGBX": "RGB",
    }
    return {**changed, "LA": "L", "La": "L", _BILEVEL: "L", "RGBa": "RGB"}.get(mode, mode)


def _read_tiff(path: Path, indices: bool) -> np.ndarray:
    with tifffile.TiffFile(path) as file:
        pages = _pages(file, path.name)
        _channels(pages[0], path.name)
        check_size((pages[0].imagewidth, pages[0].imagelength, len(pages)), path.name)
        slices = [_page(path, file, page, indices) for page in pages]
    if len({one.shape for one in slices}) > 1:
        raise ImageFault(
            f"The pages of {path.name} differ in their channels. Save each page as a file of its own."
        )
    return np.stack(slices)


def _page(path: Path, file: tifffile.TiffFile, page: tifffile.TiffPage, indices: bool) -> np.ndarray:
    """(J, I) or (J, I, C) of one page."""
    palette = page.photometric == tifffile.PHOTOMETRIC.PALETTE
    try:
        array = page.asarray()
        if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and not indices:
            array = _turned(array, page.bitspersample)
    except ValueError as error:  # a compression that it needs another library for
        other = _compressed(path, page, indices)
        if other is None:
            raise ImageFault(
                f"{path.name} is compressed as {_named(page.compression)} with {page.bitspersample} bits per "
                "value, which is not supported. Save it uncompressed, or as PNG."
            ) from error
        array, palette = other, False
    if array.dtype == bool:
        array = array.astype(np.uint8) * (1 if indices else 255)
    if palette and not indices:
        array = (np.asarray(page.colormap) >> 8).astype(np.uint8)[:, array]
        return np.moveaxis(array, 0, -1)
    if array.ndim == 3 and page.axes.startswith("S"):
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 3 and array.shape[-1] in (1, 2):  # grey, with or without alpha
        array = array[..., 0]
    return np.asarray(array.astype(array.dtype.newbyteorder("="), copy=False))


def _compressed(path: Path, page: tifffile.TiffPage, indices: bool) -> np.ndarray | None:
    """A page by Pillow, or by ITK where that keeps more of its depth; None if neither does."""
    from_white = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
    with contextlib.suppress(OSError), Image.open(path) as image:
        frame = ImageSequence.Iterator(image)[page.index]
        array = _by_pillow(frame, indices)
        # Pillow counts 8 bits from black, for labels too, and 16 bits as they are stored
        if from_white and (array.dtype == np.uint8) == indices:
            array = _turned(array, 1 if frame.mode == _BILEVEL else 8 * array.dtype.itemsize)
        if array.dtype.itemsize * 8 >= page.bitspersample:
            return array
    if page.index == 0 and not page.is_tiled:  # ITK makes 8 bits out of tiles
        with contextlib.suppress(RuntimeError):
            array = _by_itk(path, "TIFFImageIO")[0]
            if from_white and not indices:
                array = _turned(array, page.bitspersample)
            return array if array.dtype.itemsize * 8 >= page.bitspersample else None
    return None


def _turned(array: np.ndarray, bits: int) -> np.ndarray:
    """Values of `bits` bits counted from black where they were counted from white, or the other way round."""
    if np.issubdtype(array.dtype, np.floating):
        return -array
    if np.issubdtype(array.dtype, np.unsignedinteger):
        return array ^ array.dtype.type(2**bits - 1)  # of 12 bits, 4095 is the last
    return ~array


def _pages(file: tifffile.TiffFile, name: str) -> list[tifffile.TiffPage]:
    """The pages that are slices; thumbnails and transparency masks are left out.

    Raises:
        ImageFault: The pages have several sizes, or are channels or time points.
    """
    whole = [page for page in file.pages if isinstance(page, tifffile.TiffPage)]
    pages = [page for page in whole if not page.subfiletype & (_REDUCED | _MASK)]
    if not pages:
        raise ImageFault(
            f"{name} holds thumbnails only, and no whole image. Export it again from its source."
        )
    sizes = sorted({(page.imagewidth, page.imagelength) for page in pages})
    if len(sizes) > 1:
        (a, b), (c, d) = sizes[:2]
        raise ImageFault(
            f"The pages of {name} differ in size ({a} × {b} and {c} × {d} pixels), so they do not form a "
            "stack of slices. Save the page that counts as a file of its own."
        )
    imagej = file.imagej_metadata or {}
    if int(imagej.get("images", 1)) > len(pages):
        raise ImageFault(
            f"{name} is a stack of ImageJ that holds its {imagej['images']} slices behind one page. Save it "
            "again in ImageJ as OME-TIFF or image sequence, or as NRRD."
        )
    axes = _axes(imagej, pages[0])
    if len(axes) > 1 or "C" in axes:
        raise ImageFault(
            f"{name} holds {' × '.join(f'{n} {_AXES[axis]}' for axis, n in axes.items())}; one 3-D image is "
            "segmented at a time. Save one channel or time point as a file of its own."
        )
    return pages


_AXES = {"C": "channels", "Z": "slices", "T": "time points"}
_DESCRIPTION = 2**20  # characters of it that are searched


def _axes(imagej: Mapping[str, Any], page: tifffile.TiffPage) -> dict[str, int]:
    """Lengths of the axes of the stack beside those of a slice, where ImageJ or a microscope states them.

    Not by the series of tifffile, which opens other files that a description names.
    """
    lengths = {
        axis: imagej.get(name, 1) for axis, name in (("C", "channels"), ("Z", "slices"), ("T", "frames"))
    }
    for axis, length in re.findall(r'\bSize([CZT])="(\d{1,6})"', page.description[:_DESCRIPTION]):
        lengths[axis] = max(int(length), int(lengths[axis]))
    if page.samplesperpixel > 1:
        lengths["C"] = 1
    return {axis: int(length) for axis, length in lengths.items() if int(length) > 1}


def _channels(page: tifffile.TiffPage, name: str) -> int:
    """1, 3 or 4. Raises ImageFault for others, and for several values that are no colours."""
    if page.samplesperpixel in (1, 2) or page.photometric == tifffile.PHOTOMETRIC.PALETTE:
        return 1
    coloured = page.photometric in (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR)
    if page.samplesperpixel not in (3, 4) or not coloured:
        raise ImageFault(
            f"{name} has {page.samplesperpixel} channels of the kind {_named(page.photometric)}; SegMed "
            "takes grey or RGB images. Save one channel as a file of its own, or the colours as RGB."
        )
    return int(page.samplesperpixel)


def _named(code: Any) -> str:
    return str(getattr(code, "name", code))
