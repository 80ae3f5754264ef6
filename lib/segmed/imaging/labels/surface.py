"""Surfaces of labelled objects as triangles, for 3-D views."""

from __future__ import annotations

import nibabel as nib
import numpy as np
from scipy import ndimage
from skimage.measure import marching_cubes

from segmed.imaging.labels.masks import bounding_box

_MOST_VOXELS = 4_000_000  # of the field that is searched; larger objects are sampled more coarsely
_SMOOTHING = 0.7  # samples; removes the steps of the voxels and keeps structures of three voxels


def surface_mesh(mask: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The surface of an object (marching cubes, Lewiner et al. 2003).

    Args:
        mask: Mask (I, J, K), boolean.
        affine: (4, 4), voxel to RAS mm.

    Returns:
        Vertices (V, 3) in RAS mm, float32, and triangles (T, 3) of their indices, int32.

    Raises:
        ValueError: The mask is empty.
    """
    box = bounding_box(mask)
    if box is None:
        raise ValueError("There is nothing to show in 3-D. Segment the object first.")
    inside = mask[tuple(slice(low, high + 1) for low, high in box)]
    share = min(1.0, float(_MOST_VOXELS / inside.size) ** (1 / 3))
    field = inside.astype(np.float32)
    if share < 1:
        zoom = np.maximum(share, 1 / np.array(inside.shape))
        field = ndimage.zoom(field, zoom, order=1, grid_mode=True, mode="nearest")
    scale = np.array(inside.shape) / field.shape  # voxels per sample
    field = ndimage.gaussian_filter(np.pad(field, 3), _SMOOTHING)
    level = min(0.5, 0.5 * float(field.max()))  # a thin object is lower everywhere
    vertices, faces, *_ = marching_cubes(field, level)
    voxels = (vertices - 3 + 0.5) * scale - 0.5 + [low for low, _ in box]
    world = voxels @ affine[:3, :3].T + affine[:3, 3]
    if np.linalg.det(affine[:3, :3]) > 0:
        faces = faces[:, ::-1]  # so that the outside is in front in a right-handed space
    return world.astype(np.float32), np.ascontiguousarray(faces, np.int32)


def to_gifti(vertices: np.ndarray, faces: np.ndarray) -> bytes:
    """A GIFTI file of vertices (V, 3) in mm and triangles (T, 3)."""
    arrays = [
        nib.gifti.GiftiDataArray(vertices, intent="NIFTI_INTENT_POINTSET", datatype="NIFTI_TYPE_FLOAT32"),
        nib.gifti.GiftiDataArray(faces, intent="NIFTI_INTENT_TRIANGLE", datatype="NIFTI_TYPE_INT32"),
    ]
    return bytes(nib.gifti.GiftiImage(darrays=arrays).to_bytes())
