"""The position of a NIfTI file, on which readers disagree, and masks that share it for all readers.

A header may place its voxels three times: by `qform`, by `sform`, and by the size of the voxels alone; and it
may count in metres or microns. nibabel takes `sform` and knows no units, ITK takes `sform` if its code is 1,
else `qform`, and converts to millimetres. What a viewer shows is ITK's place, so that is the image's."""

from __future__ import annotations

import contextlib
import gzip
import logging
import os
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from nibabel.wrapstruct import WrapStructError

from segmed.imaging.formats.itk import itk_affine, quiet_itk

logger = logging.getLogger(__name__)

_MM = {1: 1e3, 3: 1e-3}  # by the code of the unit; others are mm or unknown
_SPACE_UNIT = 7  # bits of `xyzt_units`
_SAME = 1e-3  # voxels
_DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error)  # of compressed contents
_LONGEST = 2**15 - 1  # voxels of an axis in version 1
_GEOMETRY = (
    "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z",
    "srow_x", "srow_y", "srow_z", "xyzt_units",
)  # fmt: skip
NiftiHeader = nib.Nifti1Header | nib.Nifti2Header


def nifti_affine(path: str | os.PathLike[str], image: Any) -> np.ndarray:
    """The affine of an image as viewers show it.

    Args:
        path: Path of the file.
        image: The file as opened by nibabel.

    Returns:
        (4, 4), voxel to RAS mm: that of ITK where it reads the file, else that of nibabel in millimetres.
    """
    return nifti_affines(path, image)[0]


def nifti_affines(path: str | os.PathLike[str], image: Any) -> list[np.ndarray]:
    """All places that readers give an image, that of `nifti_affine` first; mostly there is one only."""
    plain = _stated(image.header) if "srow_x" in image.header else np.asarray(image.affine, float)
    scale = (
        _MM.get(int(image.header["xyzt_units"]) & _SPACE_UNIT, 1.0) if "xyzt_units" in image.header else 1.0
    )
    scaled = np.diag([scale, scale, scale, 1.0]) @ plain
    itk = _itk_affine(path)
    shape = (*image.shape, 1, 1)[:3]
    places: list[np.ndarray] = []
    for affine in (scaled if itk is None or same_place(itk, scaled, shape) else itk, scaled, plain):
        if not any(same_place(affine, other, shape) for other in places):
            places.append(affine)
    return places


def itk_places(header: NiftiHeader) -> bool:
    """Whether ITK can open such a file: not version 2, nor an `sform` that puts all voxels onto one plane."""
    flat = header["sform_code"] > 0 and _is_flat(header.get_sform())
    return not isinstance(header, nib.Nifti2Header) and not flat


def _stated(header: NiftiHeader) -> np.ndarray:
    """(4, 4), voxel to RAS in the unit of the header: by `sform`, else `qform`, else the size of the voxels.

    One that puts all voxels onto one plane, such as an `sform` of zeros, says nothing: the next one counts.
    """
    affine = header.get_best_affine()
    if _is_flat(affine):
        header = header.copy()
        header["sform_code"] = 0
        header["pixdim"][1:4] = np.where(header["pixdim"][1:4], header["pixdim"][1:4], 1)
        with contextlib.suppress(nib.spatialimages.HeaderDataError):  # of a quaternion that is none
            affine = header.get_best_affine()
        if _is_flat(affine):
            affine = header.get_base_affine()
        logger.warning("an sform that puts all voxels onto one plane is left out: qform or voxel size counts")
    return np.asarray(affine, float)


def _is_flat(affine: np.ndarray) -> bool:
    """Whether an affine (4, 4) puts all voxels onto one plane, line or point."""
    return bool(np.isfinite(affine).all() and np.linalg.matrix_rank(affine[:3, :3]) < 3)


def same_place(one: np.ndarray, other: np.ndarray, shape: tuple[int, ...], within: float = _SAME) -> bool:
    """Whether two affines put the voxels of an image to the same places.

    Args:
        one: (4, 4) affine, voxel to RAS mm.
        other: (4, 4) affine, voxel to RAS mm.
        shape: Shape (I, J, K) of the image.
        within: Tolerance in voxels.
    """
    if not np.isfinite(other).all() or abs(np.linalg.det(other)) == 0:
        return np.array_equal(one, other, equal_nan=True)
    corners = np.array([[*corner, 1] for corner in np.ndindex(2, 2, 2)]) * [*(np.array(shape) - 1), 1]
    return bool(np.abs(corners @ (np.linalg.inv(other) @ one).T - corners).max() <= within)


def nifti_header(path: str | os.PathLike[str]) -> NiftiHeader:
    """The header as it is in the file, faults included, which nibabel's own reading mends.

    Raises:
        ValueError: The file has no NIfTI header.
    """
    with Path(path).open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path) if packed else Path(path).open("rb") as file:
            block = file.read(540)
        kind = nib.Nifti2Header if block[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c") else nib.Nifti1Header
        return kind(block[: kind.template_dtype.itemsize], check=False)
    except (*_DAMAGE, WrapStructError, nib.spatialimages.HeaderDataError) as error:
        raise ValueError(f"{Path(path).name} has no NIfTI header.") from error


def nifti_image(
    labels: np.ndarray, affine: np.ndarray, like: str | os.PathLike[str] | None = None
) -> nib.Nifti1Image | nib.Nifti2Image:
    """Voxels as a NIfTI image to be saved.

    Args:
        labels: Label map (I, J, K).
        affine: (4, 4), voxel to RAS mm; used if `like` is not a NIfTI file.
        like: File of the image. If it is NIfTI, everything that its header states about the position is taken
            over, so that each reader puts both at the same place. Of a header that ITK does not read, the one
            place that nibabel finds is taken over, in the unit of the header.

    Returns:
        An image of version 1, which all viewers read, unless an axis is too long for it.
    """
    source = nifti_header(like) if like is not None and _is_nifti(Path(like)) else None
    # without an affine nibabel leaves the fields as they are set here
    image = (nib.Nifti1Image if max(labels.shape) <= _LONGEST else nib.Nifti2Image)(labels, None)
    header = image.header
    header.set_xyzt_units("mm")
    if source is not None and not itk_places(source):
        affine, header["xyzt_units"] = _stated(source), source["xyzt_units"]
    elif source is not None:
        for name in _GEOMETRY:
            header[name] = source[name]
        header["pixdim"][:4] = source["pixdim"][:4]
        # of an image of two axes the third size may be 0, which no reader takes for three
        header["pixdim"][3] = source["pixdim"][3] or 1
        return image
    header.set_sform(affine, 2)
    header["pixdim"][1:4] = np.linalg.norm(affine[:3, :3], axis=0)
    if _is_rigid(affine):  # no rotation can express others, such as those of a tilted gantry
        header.set_qform(affine, 2)
    return image


def _is_nifti(path: Path) -> bool:
    return path.is_file() and path.name.lower().endswith((".nii", ".nii.gz"))


def _itk_affine(path: str | os.PathLike[str]) -> np.ndarray | None:
    """Where ITK puts a file; None if it does not read it as a volume."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO("NiftiImageIO")  # others would follow the names that stand in a file
    reader.SetFileName(str(path))
    try:
        with quiet_itk():
            reader.ReadImageInformation()
    except RuntimeError:  # such as axes that are not at right angles
        return None
    if reader.GetDimension() < 3:
        return None
    affine = itk_affine(reader)
    return affine if np.isfinite(affine).all() and np.linalg.det(affine) else None


def _is_rigid(affine: np.ndarray) -> bool:
    """Whether the axes are at right angles, so that a rotation and voxel sizes describe them."""
    steps = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(steps.T @ steps - np.eye(3)).max() < 1e-4)
