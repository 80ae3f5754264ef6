"""The affine of a DICOM series, and what to say where its headers do not state the place of its slices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from segmed.imaging.formats.dicom_frames import DicomFrame
from segmed.imaging.formats.dicom_layout import Layout
from segmed.imaging.formats.faults import ImageFault

_FILMS = ("US", "IVUS", "XA", "RF", "ES", "XC")
_TIMES = tuple(map(tag_for_keyword, ("FrameTime", "FrameTimeVector")))
_OFFSETS = tag_for_keyword("GridFrameOffsetVector")  # of dose, which ITK reads as mm
_UNEVEN = 0.01  # mm by which distances of frames may differ
_EXPORT = "To measure on it, export it with ImagePositionPatient and ImageOrientationPatient"


def place_of(image: sitk.Image, layout: Layout, header: Dataset, name: str) -> tuple[np.ndarray, str]:
    """Place of the voxels of a series.

    Args:
        image: First file as ITK reads it.
        layout: Frames of the series.
        header: Header of the first file.
        name: Name of the series, for the note.

    Returns:
        Affine (4, 4), voxel to LPS mm, and a sentence on sizes that were assumed, or "".
    """
    direction = np.array(image.GetDirection()).reshape(image.GetDimension(), -1)[:3, :3]
    affine = np.eye(4)
    size = direction.shape[0]
    affine[:size, :size] = direction * np.array(image.GetSpacing())[:size]
    affine[:size, 3] = image.GetOrigin()[:size]
    first = layout.frames[0]
    if layout.origin is not None:
        affine[:3, 3] = layout.origin
        # the frames state it more exactly than the file
        if first.index is not None and layout.axes is not None:
            affine[:3, :2] = layout.axes
    step, note = step_without_positions(layout, header, name)
    if layout.step is not None:
        affine[:3, 2] = layout.step
    elif step is not None:
        affine[:3, 2] *= step / np.linalg.norm(affine[:3, 2])
    if first.spacing is None and image.GetSpacing()[:2] == (1.0, 1.0):
        size = "does not state the size of its pixels"
        if header.get("SequenceOfUltrasoundRegions"):
            size = "states the size of its pixels for ultrasound regions only, which viewers do not read"
        pixels = (
            f"{name} {size}, and 1 mm is assumed: lengths, areas and volumes are not the patient's. "
            "To measure on it, export it with PixelSpacing."
        )
        note = f"{note} {pixels}".strip()
    return affine, note


def step_without_positions(layout: Layout, header: Dataset, name: str) -> tuple[float | None, str]:
    """Distance of the slices where their positions do not tell it.

    Args:
        layout: Frames of the series.
        header: Header of the first file.
        name: Name of the series, for the note.

    Returns:
        Step in mm, None where positions or ITK tell it; and a sentence on what was assumed, or "".
    """
    if layout.step is not None:
        return None, ""
    first, several = layout.frames[0], len(layout.frames) > 1
    pointer = header.get("FrameIncrementPointer")
    pointer = next(iter(pointer), None) if isinstance(pointer, MultiValue) else pointer
    if _is_film(layout.frames, header, pointer):
        return 1.0, (
            f"The frames of {name} follow one another in time, and 1 mm is assumed between them: volumes and "
            "lengths across frames mean nothing. Measure within single frames only."
        )
    if pointer == _OFFSETS:
        steps = np.diff(np.atleast_1d(np.array(header.get("GridFrameOffsetVector") or (), float)))
        if steps.size and np.ptp(steps) > _UNEVEN:
            raise ImageFault(
                f"The frames of {name} lie {np.abs(steps).min():g} to {np.abs(steps).max():g} mm apart, and "
                "images with even distances are read. Resample it, for instance in 3D Slicer."
            )
        return None, ""
    if first.between > 0 and (first.index is not None or not several):
        return first.between, ""
    for step, source in ((first.between, "SpacingBetweenSlices"), (first.thickness, "SliceThickness")):
        if step > 0:
            told = f"{step:g} mm between them are taken from {source}: volumes may be wrong"
            break
    else:
        step, told = 1.0, "1 mm between them is assumed: volumes and lengths across slices mean nothing"
    note = f"The slices of {name} do not say where they lie in the patient, and {told}. {_EXPORT}."
    return step, note if several else ""


def _is_film(frames: Sequence[DicomFrame], header: Dataset, pointer: object) -> bool:
    """Whether the third axis is time, which ITK would read as mm."""
    if len(frames) == 1 or frames[0].index is None:
        return False
    return pointer in _TIMES or str(header.get("Modality") or "").strip() in _FILMS
