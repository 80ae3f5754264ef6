"""A volume as the bytes of an uncompressed NIfTI file, in pieces, without a file."""

from __future__ import annotations

from collections.abc import Iterator

import nibabel as nib
import numpy as np

from segmed.imaging.volume import Volume

_PIECE = 4 * 2**20
_RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])


def nifti_pieces(volume: Volume) -> tuple[int, Iterator[bytes]]:
    """The volume on its own grid, as int16, uint8, float32 or RGB24, whichever holds its numbers.

    Returns:
        The length in bytes, and the pieces.
    """
    array = volume.array if volume.is_colour else _plain(volume.array)
    header = nib.Nifti1Header()
    header.set_data_dtype(_RGB if volume.is_colour else array.dtype)
    header.set_data_shape(volume.shape)
    header.set_sform(volume.affine, 1)
    header.set_qform(volume.affine, 1)
    header.set_xyzt_units("mm")
    header.set_slope_inter(1, 0)
    header["vox_offset"] = 352
    head = header.binaryblock + bytes(4)
    if volume.is_colour:
        voxels = np.ascontiguousarray(array.transpose(2, 1, 0, 3), np.uint8)
    else:
        voxels = np.ascontiguousarray(array.T)

    def pieces() -> Iterator[bytes]:
        yield head
        view = voxels.data.cast("B")
        for start in range(0, len(view), _PIECE):
            yield bytes(view[start : start + _PIECE])

    return len(head) + voxels.nbytes, pieces()


def _plain(array: np.ndarray) -> np.ndarray:
    """Grey values in one of the types that every viewer reads, little-endian."""
    if array.dtype == np.uint8:
        return array
    if np.issubdtype(array.dtype, np.integer):
        bounds = np.iinfo(np.int16)
        if bounds.min <= array.min() and array.max() <= bounds.max:
            return array.astype("<i2", copy=False)
    return array.astype("<f4", copy=False)
