"""Which files the ITK of a viewer opens as they are, of those that are read here."""

from __future__ import annotations

import contextlib
from pathlib import Path

from nibabel.spatialimages import HeaderDataError

from segmed.imaging.formats.nifti_files import is_packed
from segmed.imaging.formats.nifti_place import itk_places, nifti_header
from segmed.imaging.formats.pictures import itk_kind
from segmed.imaging.formats.text_headers import NRRD_EXTENSIONS, data_files, packed_by_bzip2
from segmed.imaging.reading import NIFTI_EXTENSIONS, PICTURE_EXTENSIONS, kind_of


def itk_reads(path: Path) -> bool:
    """Whether a viewer opens this file by ITK: told by its first bytes, without following names in it.

    ITK opens no NIfTI of version 2, with an `sform` without extent, or compressed under the name `.nii`; no
    bzip2 in NRRD; no GIF or WebP under other names; and no header without the file of its voxels.

    Args:
        path: Path of a file, not of a folder.

    Raises:
        ImageFault: The file is of an unknown kind, or its header names files that are not read.
        OSError: The file cannot be read.
    """
    if data_files(path):
        return False
    kind = kind_of(path)
    with contextlib.suppress(ValueError, HeaderDataError, EOFError):  # damaged: it is sent as it is
        if kind in NIFTI_EXTENSIONS:
            return itk_places(nifti_header(path)) and not (path.suffix.lower() == ".nii" and is_packed(path))
        if kind in NRRD_EXTENSIONS:
            return not packed_by_bzip2(path)
        if kind in PICTURE_EXTENSIONS:
            return bool(itk_kind(path))
    return True
