"""Reading images: NIfTI by nibabel, everything else (NRRD, PNG, JPEG, TIFF, MetaImage, DICOM) by SimpleITK.

Both libraries hand out voxels in the order of the file, which is the order in which viewers count i, j, k.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from segmed.imaging.dicom_faults import check_complete, check_direction, fault_of
from segmed.imaging.itk import LPS_TO_RAS as _LPS_TO_RAS
from segmed.imaging.itk import itk_affine
from segmed.imaging.itk import quiet_itk as _quiet_itk
from segmed.imaging.nifti_place import nifti_affine
from segmed.imaging.volume import Volume

logger = logging.getLogger(__name__)

NIFTI_EXTENSIONS = (".nii.gz", ".nii")
OTHER_EXTENSIONS = (".nrrd", ".nhdr", ".mha", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".dcm")
EXTENSIONS = NIFTI_EXTENSIONS + OTHER_EXTENSIONS


def extension_of(name: str | os.PathLike[str]) -> str:
    """The extension of a file name as one of `EXTENSIONS`, lower case; "" if it is none of them."""
    lowered = Path(name).name.lower()
    return next((e for e in EXTENSIONS if lowered.endswith(e) and lowered != e), "")


def fingerprint(path: str | os.PathLike[str]) -> str:
    """A key that changes when the image behind `path` does: path, time and size of the file or of its parts."""
    path = Path(path)
    files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    parts = [(p.name, p.stat().st_mtime_ns, p.stat().st_size) for p in files]
    return hashlib.sha256(repr((str(path.resolve()), parts)).encode()).hexdigest()[:32]


def read_volume(path: str | os.PathLike[str], component: int | None = None) -> Volume:
    """Read a file, or a folder that holds one DICOM series.

    Voxels that are NaN or infinite become the smallest finite value of the image, so that windows and models
    see finite numbers only.

    Args:
        path: of the file or folder.
        component: which image of a NIfTI file with a fourth axis, such as a sequence of a multi-modal one.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: the file is damaged, of an unknown kind, not one 2-D or 3-D image, or has no finite voxel.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no image at {path}. Check the name, or upload the image again.")
    if path.is_dir():
        array, affine, modality = _read_dicom_folder(path)
    elif extension_of(path) in NIFTI_EXTENSIONS:
        array, affine, modality = _read_nifti(path, component)
    else:
        array, affine, modality = _read_itk(path)
    return Volume(_finite(array, path.name), affine, modality, str(path))


def _read_nifti(path: Path, component: int | None) -> tuple[np.ndarray, np.ndarray, str]:
    with _explained(path):
        image = nib.load(path)
        assert isinstance(image, nib.spatialimages.SpatialImage)
        array = np.asanyarray(image.dataobj if component is None else image.dataobj[:, :, :, component])
        affine = nifti_affine(path, image)
    colour = array.dtype.fields is not None
    if colour:
        array = np.stack([array[name] for name in ("R", "G", "B")], axis=-1)
    elif array.dtype == np.float64:
        array = array.astype(np.float32)
    return _to_three_axes(array, path.name, colour), affine, ""


def _read_itk(path: Path) -> tuple[np.ndarray, np.ndarray, str]:
    with _explained(path), _quiet_itk():
        image = sitk.ReadImage(str(path))
    modality = image.GetMetaData("0008|0060").strip() if image.HasMetaDataKey("0008|0060") else ""
    array, affine = _from_itk(image, path.name)
    return array, affine, modality


def _read_dicom_folder(path: Path) -> tuple[np.ndarray, np.ndarray, str]:
    with _explained(path), _quiet_itk():
        series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(path))
    if not series:
        check_complete(path, [])
        raise ValueError(f"The folder {path.name} holds no DICOM series. Give a folder of .dcm files or an image.")
    if len(series) > 1:
        raise ValueError(
            f"The folder {path.name} holds {len(series)} DICOM series, but one image is segmented at a time. "
            "Put each series into a folder of its own."
        )
    with _quiet_itk():
        files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(path), series[0])
    check_complete(path, files)
    with _explained(path, lambda: fault_of(files, path.name)), _quiet_itk():
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(files)
        reader.MetaDataDictionaryArrayUpdateOn()
        image = reader.Execute()
        modality = reader.GetMetaData(0, "0008|0060").strip() if reader.HasMetaDataKey(0, "0008|0060") else ""
    step = _slice_steps(reader, image, path.name)
    array, affine = _from_itk(image, path.name)
    if step is not None:
        affine[:3, 2] = _LPS_TO_RAS[:3, :3] @ step
    return array, affine, modality


def _slice_steps(reader: sitk.ImageSeriesReader, image: sitk.Image, name: str) -> np.ndarray | None:
    """The step from slice to slice in LPS mm, as the files state it; None where they do not.

    ITK spreads slices evenly along the normal from the first to the last. Files of a tilted gantry step askew, and
    where slices are missing or doubled there is no even step.
    """
    position, orientation, thickness, depth = "0020|0032", "0020|0037", "0018|0050", image.GetDepth()
    if len(reader.GetFileNames()) != depth or not all(reader.HasMetaDataKey(k, position) for k in range(depth)):
        return None
    if depth == 1:
        if not reader.HasMetaDataKey(0, thickness) or not float(reader.GetMetaData(0, thickness) or 0) > 0:
            return None
        normal = np.array(image.GetDirection()).reshape(3, 3)[:, 2]
        return np.asarray(normal * float(reader.GetMetaData(0, thickness)))
    if all(reader.HasMetaDataKey(k, orientation) for k in range(depth)):
        check_direction([reader.GetMetaData(k, orientation) for k in range(depth)], name)
    given = np.array([[float(v) for v in reader.GetMetaData(k, position).split("\\")] for k in range(depth)])
    step = (given[-1] - given[0]) / (depth - 1)
    miss = float(np.linalg.norm(given - (given[0] + np.arange(depth)[:, None] * step), axis=1).max())
    if miss > max(0.1, 0.1 * float(np.linalg.norm(step))):
        raise ValueError(
            f"The slices of {name} do not lie at even distances (up to {miss:.1f} mm off): slices are missing, doubled "
            "or damaged, and masks would be misplaced. Fetch the whole series again, or resample it, for instance in "
            "3D Slicer."
        )
    return np.asarray(step)


def _from_itk(image: sitk.Image, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Voxels in (i, j, k[, channel]) order and the affine in RAS mm; ITK speaks LPS."""
    colour = image.GetNumberOfComponentsPerPixel() > 1
    if image.GetNumberOfComponentsPerPixel() not in (1, 3, 4):
        raise ValueError(
            f"{name} has {image.GetNumberOfComponentsPerPixel()} channels; SegMed takes grey or RGB images. "
            "Save one channel as a file of its own."
        )
    array = sitk.GetArrayFromImage(image)
    space = list(range(image.GetDimension()))[::-1]
    array = array.transpose([*space, array.ndim - 1] if colour else space)
    return _to_three_axes(array, name, colour), itk_affine(image)


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
            f"{name} has four dimensions (shape {array.shape}): a time series or several channels. One 3-D image is "
            "segmented at a time: save one time point or channel as a file of its own and open that."
        )
    return array


def _finite(array: np.ndarray, name: str) -> np.ndarray:
    if np.issubdtype(array.dtype, np.complexfloating):
        raise ValueError(f"{name} holds complex numbers. Save its magnitude as a file of its own and open that.")
    if array.dtype == bool:
        return array.astype(np.uint8)
    if not np.issubdtype(array.dtype, np.floating):
        return array
    finite = np.isfinite(array)
    if finite.all():
        return array
    if not finite.any():
        raise ValueError(f"{name} has no finite voxel (all are NaN or infinite). Export it again from its source.")
    logger.warning("%s: %d voxels are not finite and count as background", name, int((~finite).sum()))
    return np.where(finite, array, array[finite].min()).astype(array.dtype)


@contextlib.contextmanager
def _explained(path: Path, why: Callable[[], str] = str) -> Iterator[None]:
    """Damaged files make the libraries raise anything: zlib.error, HeaderDataError, OverflowError, MemoryError, …"""
    try:
        yield
    except Exception as error:
        logger.info("cannot read %s: %s", path, error)
        raise ValueError(
            why()
            or f"The image {path.name} cannot be read: it is damaged or not an image. Readable are "
            f"{', '.join(EXTENSIONS)} and folders of one DICOM series. Export it again from its source."
        ) from error
