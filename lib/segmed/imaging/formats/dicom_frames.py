"""Frames of DICOM files, single or multi-frame: their places, and differences of those at one place."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset

# attributes that distinguish images at the same place, with words for them
TELLING = {
    "TemporalPositionIdentifier": "time points", "TemporalPositionIndex": "time points",
    "TriggerTime": "cardiac phases",
    "NominalCardiacTriggerDelayTime": "cardiac phases", "NominalPercentageOfCardiacPhase": "cardiac phases",
    "DiffusionBValue": "b-values", "EchoTime": "echoes", "EffectiveEchoTime": "echoes",
    "EchoNumbers": "echoes",
    "FrameReferenceTime": "time points", "FrameReferenceDateTime": "time points",
    "FrameAcquisitionDateTime": "time points", "AcquisitionTime": "time points", "ContentTime": "time points",
    "AcquisitionNumber": "acquisitions", "ImageType": "kinds of image", "StackID": "stacks",
}  # fmt: skip
_OF_FILE = [
    "SOPInstanceUID", "SOPClassUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID", "Modality",
    "InstanceNumber", "GridFrameOffsetVector", "SequenceOfUltrasoundRegions",
    "Rows", "Columns", "NumberOfFrames", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
    "ImagerPixelSpacing", "SliceThickness", "SpacingBetweenSlices", "SamplesPerPixel",
    "PhotometricInterpretation", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence", "FrameIncrementPointer", "EnergyWindowVector", "TimeSlotVector",
    "RotationVector", "DetectorVector", "PhaseVector", "RRIntervalVector",
    *TELLING,
]  # fmt: skip


@dataclass(frozen=True)
class DicomFrame:
    """One slice of a file.

    Attributes:
        file: Number of the file.
        index: Index of the frame in the file; None if the file has only this frame.
        position: (3,) position of the first voxel in LPS mm; None where the header does not state it.
        orientation: (6,) directions of i and j in LPS; None where the header does not state them.
        spacing: Distance between voxels along i and j in mm; None where the header does not state it.
        thickness: Thickness of the slice in mm; 0 where the header does not state it.
        between: Distance to the next slice in mm as SpacingBetweenSlices tells it; 0 where it does not.
        scale: Slope and intercept of this frame alone; None where the reader applies those of the header.
        telling: Values of the attributes in `TELLING` that the header has.
    """

    file: int
    index: int | None
    position: tuple[float, ...] | None = None
    orientation: tuple[float, ...] | None = None
    spacing: tuple[float, ...] | None = None
    thickness: float = 0.0
    between: float = 0.0
    scale: tuple[float, float] | None = None
    telling: Mapping[str, str] = field(default_factory=dict)


def read_header(path: Path) -> Dataset:
    """The needed part of the header of a DICOM file, with or without preamble; voxels are not read.

    Raises:
        Exception: Any exception that pydicom raises for damaged files.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they quote headers
        return pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=_OF_FILE)


def frames_of(header: Dataset, file: int) -> list[DicomFrame]:
    """The frames of one file in stored order.

    Raises:
        ValueError: There are fewer functional groups than frames.
    """
    count = whole(header.get("NumberOfFrames")) or 1
    per_frame = header.get("PerFrameFunctionalGroupsSequence") or ()
    shared = next(iter(header.get("SharedFunctionalGroupsSequence") or ()), Dataset())
    if not per_frame:
        one = _frame(file, None, [header], header, whole(header.get("NumberOfFrames")) > 1)
        return (
            [one]
            if count == 1
            else [DicomFrame(**{**vars(one), "index": n, "position": None}) for n in range(count)]
        )
    if len(per_frame) != count:
        raise ValueError(f"{len(per_frame)} of {count} frames are described")
    return [_frame(file, n, [group, shared], header, True) for n, group in enumerate(per_frame)]


def whole(value: Any) -> int:
    """The value as an integer; 0 if it is not one."""
    try:
        return int(value)
    except (TypeError, ValueError):
        return 0


def _frame(
    file: int, index: int | None, groups: Sequence[Dataset], header: Dataset, many: bool
) -> DicomFrame:
    spacing = _numbers(_first_value(groups, "PixelSpacing", "ImagerPixelSpacing"), 2)
    scale = None
    if index is not None:
        slope, intercept = (
            _numbers(_first_value(groups, name), 1) for name in ("RescaleSlope", "RescaleIntercept")
        )
        scale = (slope[0] if slope and slope[0] else 1.0, intercept[0] if intercept else 0.0)
    thickness, between = (
        (_numbers(_first_value(groups, name), 1) or (0.0,))[0]
        for name in ("SliceThickness", "SpacingBetweenSlices")
    )
    distinguishing = {name: _first_value([*groups, header], name) for name in TELLING}
    return DicomFrame(
        file,
        index,
        _numbers(_first_value(groups, "ImagePositionPatient"), 3),
        _numbers(_first_value(groups, "ImageOrientationPatient"), 6),
        None if spacing is None else (spacing[1], spacing[0]),
        thickness,
        between,
        scale,
        {name: _text(value) for name, value in distinguishing.items() if value not in (None, "")},
    )


def _first_value(groups: Sequence[Dataset], *names: str) -> Any:
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
        numbers = tuple(map(float, value if count > 1 else [value]))
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == count and np.isfinite(numbers).all() else None
