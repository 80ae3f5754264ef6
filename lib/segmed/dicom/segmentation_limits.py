"""How large a DICOM SEG may be: told by its header, before its frames are decoded."""

from __future__ import annotations

import zlib
from pathlib import Path

import pydicom
from pydicom.filereader import read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian

from segmed.imaging.formats.faults import ImageFault
from segmed.imaging.formats.limits import check_size, most_voxels

MOST_VALUES = 1024  # of a label map in one frame, each of which is looked for in it
_PIECE = 2**20
_TAGS = ["Rows", "Columns", "NumberOfFrames", "BitsAllocated", "SamplesPerPixel"]


def check_seg_size(path: Path) -> None:
    """Refuse a SEG whose frames are too many or too large.

    Args:
        path: of the file.

    Raises:
        ImageFault: there are more pixels than `most_voxels`.
        Exception: whatever pydicom raises for damaged files.
    """
    _check_inflated(path)
    header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
    sides = [int(header.get(side) or 0) for side in ("Columns", "Rows")]
    check_size((*sides, int(header.get("NumberOfFrames") or 1)), path.name)


def check_marked(count: int, name: str) -> None:
    """Refuse a SEG with too many voxels in its segments; 24 bytes are needed for each of them.

    Args:
        count: voxels of all segments.
        name: of the file.

    Raises:
        ImageFault: more than a quarter of `most_voxels`.
    """
    if count > most_voxels() // 4:
        raise ImageFault(
            f"The segments of {name} have more than {most_voxels() // 4:,} voxels, which is the most that is "
            "read. Crop or split the segmentation, or start the server with a larger --conf max_voxels."
        )


def _check_inflated(path: Path) -> None:
    """Refuse a deflated file that goes on and on: pydicom inflates all of it, for the header too."""
    meta = read_file_meta_info(path)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return
    with path.open("rb") as file:
        file.seek(128 + 4 + 12 + int(meta.FileMetaInformationGroupLength))
        machine, count = zlib.decompressobj(-zlib.MAX_WBITS), 0
        while piece := machine.unconsumed_tail or file.read(_PIECE):
            count += len(machine.decompress(piece, _PIECE))
            if count > most_voxels():
                raise ImageFault(
                    f"{path.name} inflates to more than {most_voxels():,} bytes, which is the most that is "
                    "read. Export it again uncompressed (Explicit VR Little Endian), with fewer frames."
                )
