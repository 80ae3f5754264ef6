"""Opens NIfTI files, compressed or not, whatever their names suggest."""

from __future__ import annotations

import gzip
import math
import os
from pathlib import Path
from typing import Any

import nibabel as nib
from nibabel.fileholders import FileHolder

from segmed.imaging.formats.faults import ImageFault

_GZIP = b"\x1f\x8b"
_NIFTI2 = 540  # bytes of its header, which is what it begins with


def open_nifti(path: str | os.PathLike[str]) -> nib.nifti1.Nifti1Pair:
    """Open a NIfTI file; voxels are read when they are accessed.

    The name does not decide: uncompressed `.nii.gz` files are common, and so are compressed `.nii` files.
    Pairs of `.hdr` and `.img` are opened as nibabel does.

    Args:
        path: Path of the file.

    Raises:
        Exception: Any exception that nibabel raises for a damaged file.
    """
    path = Path(path)
    if path.suffix.lower() in (".hdr", ".img"):
        return nib.load(path)  # type: ignore[return-value]
    packed = _starts_with(path, _GZIP)
    if packed == path.name.lower().endswith(".gz"):
        return nib.load(path)  # type: ignore[return-value]
    file: Any = gzip.open(path) if packed else path.open("rb")  # noqa: SIM115 - the image reads it later
    size = int.from_bytes(file.read(4), "little")
    file.seek(0)
    kind = (
        nib.Nifti2Image
        if _NIFTI2 in (size, int.from_bytes(size.to_bytes(4, "little"), "big"))
        else nib.Nifti1Image
    )
    holder = FileHolder(fileobj=file)
    return kind.from_file_map({"header": holder, "image": holder})


def check_length(path: Path, image: nib.nifti1.Nifti1Pair | nib.spatialimages.SpatialImage) -> None:
    """Refuse an uncompressed file that is shorter than its header states, before memory is allocated.

    Raises:
        ImageFault: The file is truncated.
    """
    if path.suffix.lower() in (".hdr", ".img") or _starts_with(path, _GZIP):
        return
    needed = math.prod(image.shape) * image.get_data_dtype().itemsize
    if path.stat().st_size < needed:
        raise ImageFault(
            f"The image {path.name} cannot be read: it is cut off, as it has {path.stat().st_size:,} bytes, "
            f"and its header tells of {needed:,} bytes of voxels. Export it again from its source."
        )


def _starts_with(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic
