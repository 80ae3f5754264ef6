"""Reads DICOM RT Structure Sets, from any manufacturer, as label maps on the grid of their series."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from skimage.measure import points_in_poly

from segmed.dicom.segmentation_reading import one_text
from segmed.dicom.series import Series
from segmed.imaging.labels.segments import Segments, StoredSegment

_PLANAR = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
_OFF_PLANE = 0.3  # slices by which a contour may lie beside its slice
_MOST_ROIS = 1000
_MOST_POINTS = 20_000_000


def read_rtstruct(path: str | os.PathLike[str], series: Series) -> tuple[Segments, list[str]]:
    """Read the closed contours of an RTSTRUCT.

    A voxel belongs to a structure if its centre lies inside an odd number of its contours on the slice, so
    that inner contours become holes, as those at the end of a keyhole do.

    Args:
        path: Path of the file.
        series: Series that it was drawn on, or another one of the same frame of reference.

    Returns:
        Segments with the names and colours of the structures, in layers where they overlap; and sentences on
        what was left out.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no RTSTRUCT, belongs to another frame of reference, or has no closed contour
            on the slices.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"There is no file {file}. Give a DICOM RTSTRUCT.")
    try:
        data = pydicom.dcmread(file)
        rois = {int(roi.ROINumber): roi for roi in data.get("StructureSetROISequence") or ()}
        contours = {int(c.ReferencedROINumber): c for c in data.get("ROIContourSequence") or ()}
    except Exception as error:  # damaged files make pydicom raise anything
        raise ValueError(f"{file.name} cannot be read as DICOM ({type(error).__name__}).") from error
    if data.get("Modality") != "RTSTRUCT":
        raise ValueError(f"{file.name} is no RTSTRUCT, but {data.get('Modality') or 'something else'}.")
    _check_place(data, rois, series, file.name)
    if len(rois) > _MOST_ROIS:
        raise ValueError(f"{file.name} has {len(rois)} structures; up to {_MOST_ROIS} are read.")
    own = str(series.headers[0].FrameOfReferenceUID)
    layers: list[np.ndarray] = []
    segments: list[StoredSegment] = []
    notes: list[str] = []
    for number, roi in sorted(rois.items()):
        name = one_text(roi.get("ROIName")) or f"structure {number}"
        if str(roi.get("ReferencedFrameOfReferenceUID") or own) != own:
            notes.append(f"{name} belongs to another frame of reference than the series and is left out.")
            continue
        mask, left = _mask(contours.get(number), series, file.name)
        if left:
            notes.append(f"{name}: {left} contours lie on no slice, or are no closed outlines.")
        if not mask.any():
            notes.append(f"{name} has no voxel on the series and is left out.")
            continue
        value = len(segments) + 1
        place = next((n for n, layer in enumerate(layers) if not layer[mask].any()), len(layers))
        if place == len(layers):
            layers.append(np.zeros(series.grid.shape, np.uint16))
        layers[place][mask] = value
        segment = StoredSegment(name, value, place, value)
        colour = contours[number].get("ROIDisplayColor")
        if colour and len(colour) == 3:
            red, green, blue = (int(c) for c in colour)
            segment = segment.coloured((red, green, blue))
        segments.append(segment)
    if not segments:
        raise ValueError(f"{file.name} has no closed contour on the slices of the series. {' '.join(notes)}")
    return Segments(tuple(layers), tuple(segments)), notes


def _check_place(data: Dataset, rois: dict[int, Dataset], series: Series, name: str) -> None:
    if not series.placed:
        raise ValueError(
            "The series does not say where it lies in the patient, so contours cannot be placed on it. Give "
            "the series that they were drawn on."
        )
    own = str(series.headers[0].FrameOfReferenceUID)
    frames = {str(roi.get("ReferencedFrameOfReferenceUID") or own) for roi in rois.values()}
    if frames and own not in frames:
        raise ValueError(
            f"{name} belongs to another frame of reference than the series. Give the series that it was "
            "drawn on, or register the two first."
        )


def _mask(contour: Dataset | None, series: Series, name: str) -> tuple[np.ndarray, int]:
    """Mask (I, J, K) of a structure, and the number of contours that were left out."""
    mask, left = np.zeros(series.grid.shape, bool), 0
    to_voxels = np.linalg.inv(series.affine)
    for one in (contour.get("ContourSequence") or ()) if contour is not None else ():
        try:
            points = np.array(one.ContourData, float).reshape(-1, 3)
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"{name} has a contour that is not made of points.") from error
        if len(points) > _MOST_POINTS or not np.isfinite(points).all():
            raise ValueError(f"{name} has a contour with too many points, or points that are not finite.")
        voxels = points @ to_voxels[:3, :3].T + to_voxels[:3, 3]
        k = round(float(voxels[:, 2].mean())) if len(voxels) else -1
        fits = len(points) > 2 and np.abs(voxels[:, 2] - k).max() <= _OFF_PLANE
        if one.get("ContourGeometricType") not in _PLANAR or not fits or not 0 <= k < mask.shape[2]:
            left += 1
            continue
        _toggle(mask[:, :, k], voxels[:, :2])
    return mask, left


def _toggle(plane: np.ndarray, polygon: np.ndarray) -> None:
    """Invert the voxels of a slice (I, J) whose centres lie inside a polygon (N, 2) as i, j."""
    low = np.maximum(np.ceil(polygon.min(0)).astype(int), 0)
    high = np.minimum(np.floor(polygon.max(0)).astype(int), np.array(plane.shape) - 1)
    if (high < low).any():
        return
    i, j = np.mgrid[low[0] : high[0] + 1, low[1] : high[1] + 1]
    inside = points_in_poly(np.stack([i.ravel(), j.ravel()], 1), polygon).reshape(i.shape)
    plane[low[0] : high[0] + 1, low[1] : high[1] + 1] ^= inside
