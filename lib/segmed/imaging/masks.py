"""Label maps: writing them on the grid of their image, and small clean-ups."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
from PIL import Image
from scipy import ndimage

MASK_EXTENSIONS = (".nrrd", ".nii.gz", ".nii", ".png")
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])


def mask_extension(name: str) -> str:
    """The extension among `MASK_EXTENSIONS` that `name` ends with.

    Raises:
        ValueError: another extension.
    """
    for extension in MASK_EXTENSIONS:
        if name.lower().endswith(extension):
            return extension
    raise ValueError(f"Masks are written as {', '.join(MASK_EXTENSIONS)}, not as {Path(name).name!r}.")


def write_mask(mask: np.ndarray, affine: np.ndarray, path: str | os.PathLike[str], compress: bool = False) -> None:
    """Write a label map so that it lies on its image; the file appears whole or not at all.

    Args:
        mask: (I, J, K) uint8 label values.
        affine: (4, 4) voxel to RAS mm, that of the image.
        path: ends in one of `MASK_EXTENSIONS`; `.png` takes a single slice and shows labels as grey values.
        compress: gzip for `.nrrd`; `.nii.gz` always is.

    Raises:
        ValueError: unknown extension, not a 3-D uint8 array, or several slices for a PNG.
        OSError: the folder cannot be written.
    """
    extension = mask_extension(str(path))
    if mask.ndim != 3 or mask.dtype != np.uint8:
        raise ValueError(f"A label map is a 3-D uint8 array, not {mask.ndim}-D {mask.dtype}.")
    path = Path(path)
    handle, name = tempfile.mkstemp(suffix=extension, prefix=".part-", dir=path.parent)
    os.close(handle)
    try:
        if extension == ".nrrd":
            _write_nrrd(mask, affine, name, compress)
        elif extension == ".png":
            if mask.shape[2] != 1:
                raise ValueError(f"A PNG holds one slice, this mask has {mask.shape[2]}. Write .nii.gz or .nrrd.")
            grey = mask[:, :, 0].T * (255 // max(1, int(mask.max())))
            Image.fromarray(grey.astype(np.uint8)).save(name)
        else:
            nib.save(nib.Nifti1Image(mask, affine), name)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _write_nrrd(mask: np.ndarray, affine: np.ndarray, name: str, compress: bool) -> None:
    header = {
        "space": "left-posterior-superior",
        # one row per axis of the array, which is a column of the affine
        "space directions": (_RAS_TO_LPS @ affine[:3, :3]).T,
        "space origin": _RAS_TO_LPS @ affine[:3, 3],
        "kinds": ["domain"] * 3,
        "encoding": "gzip" if compress else "raw",
    }
    nrrd.write(name, mask, header, compression_level=1)


def largest_component(mask: np.ndarray) -> np.ndarray:
    """The largest connected part (full connectivity) of a boolean mask; an empty mask stays empty."""
    parts, count = ndimage.label(mask, ndimage.generate_binary_structure(mask.ndim, mask.ndim))
    if count < 2:
        return mask
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.asarray(parts == sizes.argmax())


def bounding_box(mask: np.ndarray) -> tuple[tuple[int, int], ...] | None:
    """Inclusive (first, last) index of the mask along each axis, or None where it is empty."""
    found = ndimage.find_objects((mask > 0).astype(np.uint8))
    return tuple((s.start, s.stop - 1) for s in found[0]) if found else None
