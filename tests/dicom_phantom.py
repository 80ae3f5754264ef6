"""Phantoms as DICOM series in every plane."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from segmed.data.phantom import Phantom, make_phantom
from segmed.data.phantom.dicom import write_series

PLANES = ("axial", "sagittal", "coronal", "oblique")


def in_plane(phantom: Phantom, plane: str) -> Phantom:
    """The same body with its slices along another direction."""
    order = {"axial": (0, 1, 2), "oblique": (0, 1, 2), "sagittal": (1, 2, 0), "coronal": (0, 2, 1)}[plane]
    affine = phantom.affine[:, [*order, 3]].copy()
    image, labels = (np.ascontiguousarray(a.transpose(order)) for a in (phantom.image, phantom.labels))
    for axis in (
        0,
        1,
        2,
    ):  # rows and columns run to the left, the back or the feet, slices along their normal
        backward = affine[:3, axis].sum() > 0 if axis < 2 else np.linalg.det(affine[:3, :3]) < 0
        if backward:
            affine[:3, 3] += affine[:3, axis] * (image.shape[axis] - 1)
            affine[:3, axis] *= -1
            image, labels = np.flip(image, axis), np.flip(labels, axis)
    if plane == "oblique":
        a, b = np.deg2rad(25), np.deg2rad(15)
        about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
        about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
        affine[:3] = about_z @ about_x @ affine[:3]
    return Phantom(np.ascontiguousarray(image), np.ascontiguousarray(labels), phantom.names, affine)


def phantom_series(
    folder: Path,
    plane: str = "axial",
    modality: str = "CT",
    shape: tuple[int, int, int] = (64, 56, 24),
    spacing: tuple[float, float, float] = (5.4, 5.4, 8.0),
    seed: int = 3,
) -> Phantom:
    """Write a series; the phantom that comes back has its voxels as they are stored."""
    phantom = in_plane(make_phantom(modality, shape, spacing, seed), plane)
    write_series(
        folder, phantom.image, phantom.affine, modality=modality, patient=f"Phantom^{plane.capitalize()}"
    )
    return phantom
