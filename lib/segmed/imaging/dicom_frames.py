"""Frames of DICOM files, single or multi-frame: where each lies and what tells it from others at its place."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset

# what tells images at one place from each other, with the words for it
TELLING = {
    "TemporalPositionIdentifier": "time points", "TemporalPositionIndex": "time points",
    "TriggerTime": "cardiac phases",
    "NominalCardiacTriggerDelayTime": "cardiac phases", "NominalPercentageOfCardiacPhase": "cardiac phases",
    "DiffusionBValue": "b-values", "EchoTime": "echoes", "EffectiveEchoTime": "echoes", "EchoNumbers": "echoes",
    "FrameReferenceTime": "time points", "FrameReferenceDateTime": "time points",
    "FrameAcquisitionDateTime": "time points", "AcquisitionTime": "time points", "ContentTime": "time points",
    "AcquisitionNumber": "acquisitions", "ImageType": "kinds of image", "StackID": "stacks",
}  # fmt: skip
_OF_FILE = [
    "SOPInstanceUID", "SOPClassUID", "SeriesInstanceUID", "StudyInstanceUID", "Modality", "InstanceNumber", "Rows",
    "Columns", "NumberOfFrames", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
    "ImagerPixelSpacing", "SliceThickness", "SamplesPerPixel", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence", "FrameIncrementPointer", "EnergyWindowVector", "TimeSlotVector",
    "RotationVector", "DetectorVector", "PhaseVector", "RRIntervalVector",
    *TELLING,
]  # fmt: skip


@dataclass(frozen=True)
class DicomFrame:
    """One slice of a file.

    Attributes:
        file: number of the file.
        index: of the frame in the file, or None where the file has only this one.
        position: (3,) of its first voxel, LPS mm; None where the header does not tell.
        orientation: (6,) directions of i and j in LPS; None likewise.
        spacing: mm from voxel to voxel along i and j; None likewise.
        thickness: mm; 0 where the header does not tell.
        scale: slope and intercept of this frame alone; None where the reader applies what stands in the header.
        telling: values of `TELLING` that the header has.
    """

    file: int
    index: int | None
    position: tuple[float, ...] | None = None
    orientation: tuple[float, ...] | None = None
    spacing: tuple[float, ...] | None = None
    thickness: float = 0.0
    scale: tuple[float, float] | None = None
    telling: Mapping[str, str] = field(default_factory=dict)


def read_header(path: Path) -> Dataset:
    """What is needed of the header of a DICOM file, with or without preamble; no voxels.

    Raises:
        Exception: whatever pydicom raises for damaged files.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they quote headers
        return pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=_OF_FILE)


def frames_of(header: Dataset, file: int) -> list[DicomFrame]:
    """The frames of one file in stored order.

    Raises:
        ValueError: fewer functional groups than frames.
    """
    count = whole(header.get("NumberOfFrames")) or 1
    per_frame = header.get("PerFrameFunctionalGroupsSequence") or ()
    shared = next(iter(header.get("SharedFunctionalGroupsSequence") or ()), Dataset())
    if not per_frame:
        one = _frame(file, None, [header], header, whole(header.get("NumberOfFrames")) > 1)
        return (
            [one] if count == 1 else [DicomFrame(**{**vars(one), "index": n, "position": None}) for n in range(count)]
        )
    if len(per_frame) != count:
        raise ValueError(f"{len(per_frame)} of {count} frames are described")
    return [_frame(file, n, [group, shared], header, True) for n, group in enumerate(per_frame)]


def whole(value: Any) -> int:
    """A whole number, 0 for what is none."""
    try:
        return int(value)
    except (TypeError, ValueError):
        return 0


def _frame(file: int, index: int | None, groups: Sequence[Dataset], header: Dataset, many: bool) -> DicomFrame:
    spacing = _numbers(_found(groups, "PixelSpacing", "ImagerPixelSpacing"), 2)
    scale = None
    if index is not None:
        slope, intercept = (_numbers(_found(groups, name), 1) for name in ("RescaleSlope", "RescaleIntercept"))
        scale = (slope[0] if slope and slope[0] else 1.0, intercept[0] if intercept else 0.0)
    told = {name: _found([*groups, header], name) for name in TELLING}
    return DicomFrame(
        file,
        index,
        _numbers(_found(groups, "ImagePositionPatient"), 3),
        _numbers(_found(groups, "ImageOrientationPatient"), 6),
        None if spacing is None else (spacing[1], spacing[0]),
        (_numbers(_found(groups, "SliceThickness"), 1) or (0.0,))[0],
        scale,
        {name: _text(value) for name, value in told.items() if value not in (None, "")},
    )


def _found(groups: Sequence[Dataset], *names: str) -> Any:
    """The first value of one of these names, in the groups themselves or one sequence deeper."""
    for name in names:
        for group in groups:
            for place in _places(group):
                if (value := place.get(name)) is not None:
                    return value
    return None


def _places(group: Dataset) -> Iterator[Dataset]:
    yield group
    if "SOPClassUID" not in group:  # a functional group, which holds sequences of one item
        for element in group:
            if element.VR == "SQ" and element.value:
                yield element.value[0]


def _text(value: Any) -> str:
    return "\\".join(map(str, value)) if isinstance(value, pydicom.multival.MultiValue) else str(value)


def _numbers(value: Any, count: int) -> tuple[float, ...] | None:
    if value is None or value == "":
        return None
    try:
        found = tuple(map(float, value if count > 1 else [value]))
    except (TypeError, ValueError):
        return None
    return found if len(found) == count and np.isfinite(found).all() else None
