"""Why a DICOM series cannot be used, in messages that say what to do about it."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import UID

from segmed.imaging.formats.faults import ImageFault

_PREAMBLE = 128
_FIRST_LENGTH = 1024  # bytes of the value of a first element
_SAME_DIRECTION = 1e-3
# of pydicom 3.0; the older one does not know their names
_HTJ2K = {f"1.2.840.10008.1.2.4.{n}": "High-Throughput JPEG 2000" for n in (201, 202, 203)}


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, by the prefix after its preamble or, without one, by its first elements."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            start = file.read(_PREAMBLE + 4)
            return start[_PREAMBLE:] == b"DICM" or (_looks_like_elements(start) and _has_class(path))
    except OSError:
        return False


def _looks_like_elements(start: bytes) -> bool:
    """Whether a file begins with an element of the group 2 or 8, in either order of bytes."""
    if len(start) < 16:
        return False
    for order in ("little", "big"):
        group, element = (int.from_bytes(start[n : n + 2], order) for n in (0, 2))  # type: ignore[arg-type]
        if group in (2, 8) and element < 0x100:
            explicit = start[4:6].isalpha() and start[4:6].isupper()
            return explicit or int.from_bytes(start[4:8], order) < _FIRST_LENGTH  # type: ignore[arg-type]
    return False


def _has_class(path: Path) -> bool:
    """Whether a file without preamble states its SOP class."""
    with warnings.catch_warnings(), contextlib.suppress(Exception):  # other files make pydicom raise anything
        warnings.simplefilter("ignore")
        header = pydicom.dcmread(
            path, stop_before_pixels=True, force=True, specific_tags=["SOPClassUID", "Modality"]
        )
        return bool(header.get("SOPClassUID"))
    return False


def check_complete(folder: Path, read: Iterable[str]) -> None:
    """Refuse a folder with DICOM files that the reader passed over, as it does with damaged ones.

    Args:
        folder: Folder of one series.
        read: Files that make up the image.

    Raises:
        ImageFault: The folder holds other DICOM files too.
    """
    taken = {Path(name).name for name in read}
    left = [
        p.name
        for p in sorted(folder.iterdir())
        if p.name not in taken and p.name.upper() != "DICOMDIR" and not p.name.startswith(".") and is_dicom(p)
    ]
    if left:
        raise ImageFault(
            f"{len(left)} of the {len(left) + len(taken)} DICOM files of {folder.name} cannot be read, such "
            f"as {left[0]}: damaged, or no image. Fetch the whole series again."
        )


def check_direction(orientations: Sequence[str], name: str) -> None:
    """Refuse slices of several directions, as a localizer has.

    Args:
        orientations: ImageOrientationPatient of each slice, as text.
        name: Name of the series, for messages.

    Raises:
        ImageFault: The directions differ.
    """
    if len(set(orientations)) < 2:
        return
    given = np.array([[float(v) for v in text.split("\\")] for text in orientations])
    if np.abs(given - given[0]).max() > _SAME_DIRECTION:
        raise ImageFault(
            f"The slices of {name} do not all lie in the same direction, as in a localizer of several "
            "planes. Open the series that was planned on it, or part its planes into series of their own."
        )


def fault_of(files: Sequence[str], name: str) -> str:
    """A sentence on why the voxels of these files could not be read; "" if the headers give no reason."""
    headers = []
    with (
        warnings.catch_warnings(),
        contextlib.suppress(Exception),
    ):  # damaged files make pydicom raise anything
        warnings.simplefilter("ignore")  # they quote headers
        headers = [
            pydicom.dcmread(f, stop_before_pixels=True, specific_tags=["Rows", "Columns"]) for f in files
        ]
    sizes = {(header.get("Columns"), header.get("Rows")) for header in headers}
    if len(sizes) > 1:
        return (
            f"The slices of {name} differ in size "
            f"({' and '.join(f'{i} × {j}' for i, j in sorted(sizes)[:2])} pixels), so they do not form a "
            "volume. Part them into series of their own, or resample them, for instance in 3D Slicer."
        )
    syntaxes = {str(header.file_meta.get("TransferSyntaxUID", "")) for header in headers}
    if squeezed := sorted(syntaxes - {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", ""}):
        kind = _HTJ2K.get(squeezed[0]) or UID(squeezed[0]).name
        return (
            f"The voxels of {name}, compressed as {kind}, cannot be read: that compression is not supported, "
            "or the files are damaged. Export the series uncompressed (Explicit VR Little Endian)."
        )
    return ""
