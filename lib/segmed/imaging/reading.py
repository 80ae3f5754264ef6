"""Reads images: NIfTI by nibabel, NRRD and MetaImage by SimpleITK, others by `pictures`, `dicom_reading`.

All return voxels in the order of the file, which is the order in which viewers count i, j, k.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from segmed.imaging.formats.channels import check_axes, is_colour
from segmed.imaging.formats.dicom_faults import is_dicom
from segmed.imaging.formats.dicom_reading import open_dicom, read_dicom
from segmed.imaging.formats.faults import ImageFault, explained
from segmed.imaging.formats.itk import LPS_TO_RAS, itk_affine, quiet_itk
from segmed.imaging.formats.limits import check_size
from segmed.imaging.formats.nifti_files import check_end, check_length, open_nifti
from segmed.imaging.formats.nifti_place import nifti_affine
from segmed.imaging.formats.pictures import PICTURE_EXTENSIONS, itk_kind, read_picture
from segmed.imaging.formats.text_headers import (
    DETACHED_EXTENSIONS,
    NRRD_EXTENSIONS,
    check_regular,
    data_files,
    for_itk,
)
from segmed.imaging.volume import Volume

logger = logging.getLogger(__name__)

NIFTI_EXTENSIONS = (".nii.gz", ".nii")
OTHER_EXTENSIONS = (".nrrd", ".nhdr", ".mha", ".mhd", *PICTURE_EXTENSIONS, ".dcm")
EXTENSIONS = NIFTI_EXTENSIONS + OTHER_EXTENSIONS
_PAIRS = (".hdr", ".img")  # read where they are named, but no image of a studies folder


def extension_of(name: str | os.PathLike[str]) -> str:
    """The extension of a file name as one of `EXTENSIONS`, lower case; "" if it is not one of them."""
    lowered = Path(name).name.lower()
    return next((e for e in EXTENSIONS if lowered.endswith(e) and lowered != e), "")


def fingerprint(path: str | os.PathLike[str]) -> str:
    """A key that changes when the image behind `path` does: path, time and size of the file or its parts."""
    path = Path(path)
    files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    if path.suffix.lower() in DETACHED_EXTENSIONS:
        with contextlib.suppress(ValueError, OSError):
            files += data_files(path)
    parts = [(p.name, p.stat().st_mtime_ns, p.stat().st_size) for p in files]
    return hashlib.sha256(repr((str(path.resolve()), parts)).encode()).hexdigest()[:32]


def read_volume(path: str | os.PathLike[str], component: int | None = None, labels: bool = False) -> Volume:
    """Read a file, or a folder that holds one DICOM series.

    Voxels that are NaN or infinite become the smallest finite value of the image, so that windows and models
    see finite numbers only; in a label map, they become 0. Numbers of 64 bits beyond the range of float32
    count as infinite.

    Args:
        path: Path of the file or folder.
        component: Index of the image along the fourth axis of a NIfTI file, such as a sequence of a
            multi-modal one.
        labels: Whether the file is a label map, so that palette indices are read and not colours, and grey
            values as they are stored.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, of an unknown kind, not one 2-D or 3-D image, or has no finite voxel,
            or almost none within the range of float32.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"There is no image at {path}. Check the path; on a server, upload the image again."
        )
    if path.is_dir():
        return _read_dicom(path, labels)
    check_regular(path)
    extension = kind_of(path)
    if extension in NIFTI_EXTENSIONS:
        array, affine = _read_nifti(path, component)
    elif extension in PICTURE_EXTENSIONS:
        array, affine = _read_picture(path, labels)
    elif extension == ".dcm":
        return _read_dicom(path, labels)
    else:
        array, affine = _read_itk(path)
    return Volume(_finite(array, path.name, labels), affine, source=str(path))


def kind_of(path: Path) -> str:
    """The extension that a file is read by: `.dcm` for DICOM of other names, `.nii` for pairs of two files.

    Raises:
        ImageFault: The file is of no kind that can be read.
    """
    if extension := extension_of(path):
        return extension
    if path.suffix.lower() in _PAIRS:
        return ".nii"
    if is_dicom(path):
        return ".dcm"
    raise ImageFault(
        f"The image {path.name} cannot be read: its kind is not known. Readable are {', '.join(EXTENSIONS)} "
        "and folders of one DICOM series. Export it again from its source."
    )


def _read_nifti(path: Path, component: int | None) -> tuple[np.ndarray, np.ndarray]:
    with reading_explained(path):
        image = open_nifti(path)
        assert isinstance(image, nib.spatialimages.SpatialImage)
        check_length(path, image)
        check_size(image.shape, path.name)
        array = np.asanyarray(image.dataobj if component is None else image.dataobj[:, :, :, component])
        check_end(path, image)
        affine = nifti_affine(path, image)
    colour = array.dtype.fields is not None
    if colour:
        array = np.stack([array[name] for name in ("R", "G", "B")], axis=-1)
    return _to_three_axes(array, path.name, colour), affine


def _read_itk(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with reading_explained(path), quiet_itk(), for_itk(path) as plain:
        check_axes(path)
        reader = itk_reader(plain)
        reader.ReadImageInformation()
        check_size([*reader.GetSize(), reader.GetNumberOfComponents()], path.name)
        image = reader.Execute()
    colour = is_colour(path, image.GetNumberOfComponentsPerPixel())
    array = sitk.GetArrayFromImage(image)
    space = list(range(image.GetDimension()))[::-1]
    array = array.transpose([*space, array.ndim - 1] if colour else space)
    return _to_three_axes(array, path.name, colour), itk_affine(image)


def itk_reader(path: Path) -> sitk.ImageFileReader:
    """A reader for the format of the extension alone: others would open further files that a header names."""
    extension = path.suffix.lower()
    reader = sitk.ImageFileReader()
    reader.SetImageIO("NrrdImageIO" if extension in NRRD_EXTENSIONS else "MetaImageIO")
    reader.SetFileName(str(path))
    return reader


def _read_picture(path: Path, labels: bool) -> tuple[np.ndarray, np.ndarray]:
    with reading_explained(path), quiet_itk():
        array, colour = read_picture(path, labels)
    return _to_three_axes(array, path.name, colour), _picture_affine(path)


def _picture_affine(path: Path) -> np.ndarray:
    """Affine with the pixel size that the picture states, or with 1 mm."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        with quiet_itk():
            reader.SetImageIO(itk_kind(path))
            reader.ReadImageInformation()
            return itk_affine(reader)
    except RuntimeError:  # kinds that ITK does not read
        return LPS_TO_RAS.copy()


def _read_dicom(path: Path, labels: bool) -> Volume:
    with reading_explained(path):
        array, affine, modality, note = read_dicom(open_dicom(path))
    if note:
        logger.warning("%s", note)
    return Volume(_finite(array, path.name, labels), LPS_TO_RAS @ affine, modality, str(path), note)


def _to_three_axes(array: np.ndarray, name: str, colour: bool) -> np.ndarray:
    """(I, J, K) or (I, J, K, 3): missing axes are added, empty ones dropped, alpha left out."""
    if colour:
        array = array[..., :3]
    axes = array.ndim - 1 if colour else array.ndim
    if axes < 2:
        raise ValueError(f"{name} has only {axes} axis; an image needs two or three.")
    if axes == 2:
        array = array[:, :, None]
    while array.ndim - int(colour) > 3 and array.shape[3] == 1:
        array = array[:, :, :, 0]
    if array.ndim - int(colour) > 3:
        raise ValueError(
            f"{name} has four dimensions (shape {array.shape}): a time series or several channels. One 3-D "
            "image is segmented at a time: save one time point or channel as a file of its own and open that."
        )
    return array


def _finite(array: np.ndarray, name: str, labels: bool) -> np.ndarray:
    if np.issubdtype(array.dtype, np.complexfloating):
        raise ValueError(
            f"{name} holds complex numbers. Save its magnitude as a file of its own and open that."
        )
    if array.dtype == bool:
        return array.astype(np.uint8)
    if not np.issubdtype(array.dtype, np.floating):
        return array
    wide = array
    if array.dtype.itemsize > 4:
        with np.errstate(over="ignore"):
            array = array.astype(np.float32)
    finite = np.isfinite(array)
    if finite.all():
        return array
    values = array[finite]
    # one value may be left, as of an empty background: then it is not some mark for "no data" that is beyond
    if (not values.size or values.min() == values.max()) and (beyond := np.isfinite(wide) & ~finite).any():
        raise ValueError(
            f"{name} holds values such as {wide[beyond][0]:g}, and numbers are read up to "
            f"{np.finfo(np.float32).max:.2g}, the range of float32. Scale its values down and save it again."
        )
    if not values.size:
        raise ValueError(
            f"{name} has no finite voxel (all are NaN or infinite). Export it again from its source."
        )
    logger.warning("%s: %d voxels are not finite and count as background", name, int((~finite).sum()))
    # NaN around structures would otherwise be one of them, as their smallest value is 1
    return np.where(finite, array, 0 if labels else values.min()).astype(array.dtype)


@contextlib.contextmanager
def reading_explained(path: Path) -> Iterator[None]:
    """Replace errors of the libraries by a ValueError that says what can be read, see `faults.explained`."""
    with explained(path, ", ".join(EXTENSIONS)):
        yield
