"""Opens NIfTI files, compressed or not, whatever their names suggest."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.fileholders import FileHolder

from segmed.imaging.formats.faults import ImageFault

_GZIP = b"\x1f\x8b"
_NIFTI2 = 540  # bytes of its header, which is what it begins with
_PIECE = 2**22  # bytes
_ROUNDING = 1e-4  # of the length of a quaternion


class _Lenient:
    """A NIfTI header that is read as other programs read it.

    Its intercept counts as 0 if it is NaN or infinite, and its slope still applies. A quaternion that is a
    little longer than 1, as writers round it, is shortened; nibabel refuses it.
    """

    def get_qform_quaternion(self) -> np.ndarray:
        """The quaternion (w, x, y, z) of length 1. Raises ValueError if it is much longer."""
        header: Any = self
        xyz = np.array([header[f"quatern_{axis}"] for axis in "bcd"], float)
        if 1 < (length := float(np.linalg.norm(xyz))) < 1 + _ROUNDING:
            return np.array([0.0, *(xyz / length)])
        return super().get_qform_quaternion()  # type: ignore[misc, no-any-return]

    def get_slope_inter(self) -> tuple[float | None, float | None]:
        """Slope and intercept as nibabel finds them, (None, None) without a valid slope."""
        header: Any = self
        if not np.isfinite(header["scl_inter"]):
            header = header.copy()
            header["scl_inter"] = 0
        return super(_Lenient, header).get_slope_inter()  # type: ignore[misc, no-any-return]


class _Header1(_Lenient, nib.Nifti1Header):
    pass


class _Header2(_Lenient, nib.Nifti2Header):
    pass


class _Image1(nib.Nifti1Image):
    header_class = _Header1


class _Image2(nib.Nifti2Image):
    header_class = _Header2


def open_nifti(path: str | os.PathLike[str]) -> nib.nifti1.Nifti1Pair:
    """Open a NIfTI file; voxels are read when they are accessed.

    The name does not decide: uncompressed `.nii.gz` files are common, and so are compressed `.nii` files.
    Pairs of `.hdr` and `.img` are opened as nibabel does. Call `check_end` once the voxels are read.

    Args:
        path: Path of the file.

    Raises:
        ImageFault: The voxels would begin inside the header.
        Exception: Any exception that nibabel raises for a damaged file.
    """
    path = Path(path)
    if path.suffix.lower() in (".hdr", ".img"):
        return nib.load(path)  # type: ignore[return-value]
    file: Any = gzip.open(path) if is_packed(path) else path.open("rb")  # noqa: SIM115 - the image reads it later
    size = int.from_bytes(file.read(4), "little")
    file.seek(0)
    kind = _Image2 if _NIFTI2 in (size, int.from_bytes(size.to_bytes(4, "little"), "big")) else _Image1
    holder = FileHolder(fileobj=file)
    image = kind.from_file_map({"header": holder, "image": holder})
    begin: int = image.dataobj.offset
    if begin < int(image.header["sizeof_hdr"]):
        file.close()
        raise ImageFault(
            f"The image {path.name} cannot be read: by its header, the voxels begin at byte {begin}, inside "
            "the header. Set vox_offset to the end of the header, or load and save the image in 3D Slicer."
        )
    return image


def check_end(path: Path, image: nib.spatialimages.SpatialImage) -> None:
    """Read a compressed file from behind its voxels to its end, where its checksum is, and close it.

    What follows the voxels is decompressed in pieces and dropped; bytes that are not gzip are ignored, as
    `gunzip` does.

    Raises:
        ImageFault: The checksum is not that of the contents, or the file is cut off.
    """
    file = image.file_map["image"].fileobj
    if file is None or not isinstance(file, gzip.GzipFile):
        return
    try:
        with file:
            while file.read(_PIECE):
                pass
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        if "Not a gzipped file" not in str(error):  # it would be behind a complete part
            raise ImageFault(
                f"The image {path.name} cannot be read: it is cut off or damaged, as its compressed contents "
                "do not agree with their checksum. Copy it again, or export it again from its source."
            ) from error


def check_length(path: Path, image: nib.nifti1.Nifti1Pair | nib.spatialimages.SpatialImage) -> None:
    """Refuse an uncompressed file that is shorter than its header states, before memory is allocated.

    Raises:
        ImageFault: The file is truncated.
    """
    if path.suffix.lower() in (".hdr", ".img") or is_packed(path):
        return
    needed = math.prod(image.shape) * image.get_data_dtype().itemsize
    if path.stat().st_size < needed:
        raise ImageFault(
            f"The image {path.name} cannot be read: it is cut off, as it has {path.stat().st_size:,} bytes, "
            f"and its header tells of {needed:,} bytes of voxels. Export it again from its source."
        )


def is_packed(path: Path) -> bool:
    """Whether the contents of a file are compressed by gzip, whatever its name."""
    with path.open("rb") as file:
        return file.read(len(_GZIP)) == _GZIP
