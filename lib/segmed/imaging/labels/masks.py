"""Label maps: writing them on the grid of their image, and small clean-ups."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
from PIL import Image
from scipy import ndimage

from segmed.imaging.durable import appear_whole
from segmed.imaging.formats.nifti_place import nifti_image

MASK_EXTENSIONS = (".nrrd", ".nii.gz", ".nii", ".png")
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])


def mask_extension(name: str) -> str:
    """The extension among `MASK_EXTENSIONS` that `name` ends with.

    Raises:
        ValueError: The name has another extension.
    """
    for extension in MASK_EXTENSIONS:
        if name.lower().endswith(extension):
            return extension
    raise ValueError(f"Masks are written as {', '.join(MASK_EXTENSIONS)}, not as {Path(name).name!r}.")


def stack_slices(masks: Mapping[int, np.ndarray], shape: tuple[int, int, int]) -> np.ndarray:
    """Masks (H, W) of slices k as one (I, J, K) uint8 array in Fortran order, empty elsewhere."""
    out = np.zeros(shape, np.uint8, order="F")
    for k, mask in masks.items():
        out[:, :, k] = mask.T
    return out


def write_mask(
    mask: np.ndarray,
    affine: np.ndarray,
    path: str | os.PathLike[str],
    compress: bool = False,
    like: str | os.PathLike[str] | None = None,
) -> None:
    """Write a label map so that it lies on its image; the file appears whole or not at all.

    Args:
        mask: Label values (I, J, K), uint8; uint16 where there are many, but not for `.png`.
        affine: (4, 4), voxel to RAS mm, of the image.
        path: Path that ends in one of `MASK_EXTENSIONS`; `.png` takes a single slice and shows labels as grey
            values.
        compress: Whether to compress `.nrrd` by gzip; `.nii.gz` always is.
        like: File of the image; a NIfTI mask of a NIfTI image takes over everything that the image's header
            states about its position.

    Raises:
        ValueError: The extension is unknown, the mask is not a 3-D array of the allowed types, or has several
            slices for a PNG.
        OSError: The folder cannot be written.
    """
    extension = mask_extension(str(path))
    if mask.ndim != 3 or not (mask.dtype == np.uint8 or (mask.dtype == np.uint16 and extension != ".png")):
        raise ValueError(f"A label map is a 3-D uint8 array, not {mask.ndim}-D {mask.dtype}.")
    if extension == ".png" and mask.shape[2] != 1:
        raise ValueError(f"A PNG holds one slice, this mask has {mask.shape[2]}. Write .nii.gz or .nrrd.")
    with appear_whole(Path(path), extension, sync=False) as name:
        if extension == ".nrrd":
            nrrd.write(
                str(name), mask, _nrrd_header(affine, "gzip" if compress else "raw"), compression_level=1
            )
        elif extension == ".png":
            grey = mask[:, :, 0].T * (255 // max(1, int(mask.max())))
            Image.fromarray(grey.astype(np.uint8)).save(name)
        else:
            nib.save(nifti_image(mask, affine, like), str(name))


def write_nrrd_slices(
    masks: Mapping[int, np.ndarray],
    shape: tuple[int, int, int],
    affine: np.ndarray,
    path: str | os.PathLike[str],
) -> None:
    """`write_mask` to an uncompressed `.nrrd` for masks of a few slices.

    Only these slices are written, the rest stays a hole of zeros in the file: a click on one slice of a large
    volume must not cost the copying of the volume.

    Args:
        masks: Mask (H, W), boolean or uint8, by slice.
        shape: Shape (I, J, K) of the image.
        affine: (4, 4), voxel to RAS mm, of the image.
        path: Path that ends in `.nrrd`.
    """
    header = io.BytesIO()
    nrrd.write(header, np.zeros((1, 1, 1), np.uint8), _nrrd_header(affine, "raw"))
    text = header.getvalue()[:-1].replace(
        b"sizes: 1 1 1", f"sizes: {shape[0]} {shape[1]} {shape[2]}".encode()
    )
    slab = shape[0] * shape[1]
    with appear_whole(Path(path), ".nrrd", sync=False) as name, name.open("wb") as file:
        file.write(text)
        file.truncate(len(text) + slab * shape[2])
        for k, mask in masks.items():
            file.seek(len(text) + slab * k)
            file.write(np.ascontiguousarray(mask, np.uint8).data)


def _nrrd_header(affine: np.ndarray, encoding: str) -> dict[str, object]:
    return {
        "space": "left-posterior-superior",
        # one row per axis of the array, which is a column of the affine
        "space directions": (_RAS_TO_LPS @ affine[:3, :3]).T,
        "space origin": _RAS_TO_LPS @ affine[:3, 3],
        "kinds": ["domain"] * 3,
        "encoding": encoding,
    }


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


def slice_box(mask: np.ndarray) -> tuple[float, float, float, float]:
    """The tight box (x0, y0, x1, y1), ends inclusive, of a mask (H, W).

    Raises:
        ValueError: The mask is empty.
    """
    found = bounding_box(mask)
    if found is None:
        raise ValueError("An empty mask has no box.")
    (y0, y1), (x0, x1) = found
    return float(x0), float(y0), float(x1), float(y1)


def binary_labels(stored: np.ndarray, file: Path) -> np.ndarray:
    """Label 1, uint8, for every value above zero, as in masks of 0 and 255.

    In JPEG masks, whose edges blur, it is every value in the upper half.
    """
    least = 127 if file.suffix.lower() in (".jpg", ".jpeg") else 0
    return (stored > least).astype(np.uint8)
