"""NIfTI: packings, versions, types, axes, and damage."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np

from corpus.row import AFFINE, I, J, K, Row, brick, colours


def rows() -> Iterator[Row]:
    """All of them."""
    plain = brick()
    content = nib.Nifti1Image(plain, AFFINE).to_bytes()
    second = nib.Nifti2Image(plain, AFFINE).to_bytes()
    whole = {
        "plain.nii": content,
        "packed.nii.gz": gzip.compress(content),
        "not_packed.nii.gz": content,
        "packed_without_saying_so.nii": gzip.compress(content),
        "UPPER.NII.GZ": gzip.compress(content),
        "second.nii": second,
        "second_not_packed.nii.gz": second,
        "second_packed.nii.gz": gzip.compress(second),
        "big_ends.nii": nib.Nifti1Image(
            plain.astype(">i2"), AFFINE, nib.Nifti1Header(endianness=">")
        ).to_bytes(),
    }
    for name, data in whole.items():
        yield Row(name, _bytes(data), plain, affine=AFFINE)
    for name in ("uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "float32", "float64"):
        array = brick(np.dtype(name).type)
        yield Row(f"nifti_{name}.nii.gz", _image(array), array, affine=AFFINE)
    yield Row("scaled.nii", _scaled(plain), plain * 0.5 - 1024, affine=AFFINE)
    yield Row("trailing_axes.nii.gz", _image(plain.reshape(I, J, K, 1, 1)), plain)
    yield Row("one_slice.nii.gz", _image(plain[:, :, :1]), plain[:, :, :1])
    yield Row("flat.nii.gz", _image(plain[:, :, 0]), plain[:, :, :1])
    rgb = colours()
    packed = rgb.view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    yield Row("rgb.nii.gz", _image(packed), rgb)
    alpha = np.concatenate([rgb, np.full((I, J, K, 1), 255, np.uint8)], axis=-1)
    packed = alpha.view([("R", "u1"), ("G", "u1"), ("B", "u1"), ("A", "u1")])[..., 0]
    yield Row("rgba.nii.gz", _image(packed), rgb)
    holes = plain.astype(np.float32)
    holes[1, 2, 3], holes[4, 5, 0] = np.nan, np.inf
    filled = np.where(np.isfinite(holes), holes, holes[np.isfinite(holes)].min())
    yield Row("some_nan.nii.gz", _image(holes), filled)
    yield Row("pair.img", lambda path: nib.save(nib.Nifti1Pair(plain, AFFINE), path), plain, sent="not taken")
    yield from _refused(content)


def _refused(content: bytes) -> Iterator[Row]:
    for count in (2, 3, 4, 7):
        array = np.zeros((I, J, K, count), np.int16)
        yield Row(
            f"times_{count}.nii.gz", _image(array), words="four dimensions", thread="Slicer/Slicer#2972"
        )
    yield Row("vectors.nii.gz", _image(np.zeros((I, J, K, 1, 3), np.float32)), words="four dimensions")
    yield Row("complex.nii.gz", _image(np.ones((I, J, K), np.complex64)), words="complex numbers")
    yield Row("only_nan.nii.gz", _image(np.full((I, J, K), np.nan, np.float32)), words="no finite voxel")
    packed = gzip.compress(content)
    damaged = {
        "empty.nii.gz": b"",
        "empty.nii": b"",
        "cut_off.nii.gz": packed[: len(packed) // 2],
        "cut_off.nii": content[: len(content) // 2],
        "page.nii.gz": b"<html>Sign in first</html>",
        "noise.nii": np.random.default_rng(3).bytes(3000),
        "type_unknown.nii": _patched(content, 70, struct.pack("<h", 9999)),
        "size_negative.nii": _patched(content, 40, struct.pack("<4h", 3, -5, 7, 5)),
        "size_huge.nii": _patched(content, 40, struct.pack("<4h", 3, 32000, 32000, 32000)),
        "offset_nan.nii": _patched(content, 108, struct.pack("<f", float("nan"))),
    }
    for name, data in damaged.items():
        yield Row(name, _bytes(data), words="cannot be read")
    nowhere = _patched(content, 280, struct.pack("<4f", *[float("nan")] * 4))
    yield Row("place_nan.nii", _bytes(nowhere), words="affine is not a finite|cannot be read")


def _patched(content: bytes, offset: int, value: bytes) -> bytes:
    return content[:offset] + value + content[offset + len(value) :]


def _bytes(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def _image(array: np.ndarray) -> Callable[[Path], object]:
    kind = array.dtype if array.dtype.kind in "iu" and array.dtype.itemsize == 8 else None
    return lambda path: nib.save(nib.Nifti1Image(array, AFFINE, dtype=kind), path)


def _scaled(array: np.ndarray) -> Callable[[Path], object]:
    image = nib.Nifti1Image(array, AFFINE)
    content = image.to_bytes()
    return _bytes(_patched(content, 112, struct.pack("<2f", 0.5, -1024)))
