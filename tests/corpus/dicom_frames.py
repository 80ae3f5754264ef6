"""Multi-frame DICOM with a place, and if wanted a scale, for each frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, generate_uid


def write_frames(
    voxels: np.ndarray,
    heights: Sequence[float],
    scales: Sequence[tuple[float, float]] | None = None,
    shared: tuple[float, float] | None = None,
    edit: Callable[[int, Dataset], object] = lambda n, group: None,
) -> Callable[[Path], Path]:
    """One object of frames (I, J, K).

    Args:
        voxels: int16, as they are stored.
        heights: of each frame, mm.
        scales: slope and intercept of each frame.
        shared: slope and intercept of all frames.
        edit: changes the functional groups of a frame.
    """

    def make(path: Path) -> Path:
        data = _head(path, voxels)
        common = _item("PlaneOrientationSequence", ImageOrientationPatient=[1.0, 0, 0, 0, 1, 0])
        common.update(_item("PixelMeasuresSequence", PixelSpacing=[0.9, 0.8], SliceThickness=2.5))
        if shared:
            common.update(_scale(*shared))
        data.SharedFunctionalGroupsSequence = [common]
        groups = []
        for n, height in enumerate(heights):
            group = _item("PlanePositionSequence", ImagePositionPatient=[-40.0, -50.0, height])
            group.update(_item("FrameContentSequence", StackID="1", InStackPositionNumber=n + 1))
            if scales:
                group.update(_scale(*scales[n]))
            edit(n, group)
            groups.append(group)
        data.PerFrameFunctionalGroupsSequence = groups
        path.parent.mkdir(parents=True, exist_ok=True)
        data.save_as(path, write_like_original=False)
        return path

    return make


def _head(path: Path, voxels: np.ndarray) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = EnhancedMRImageStorage, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    data.is_little_endian, data.is_implicit_VR = True, False
    data.SOPClassUID, data.SOPInstanceUID = EnhancedMRImageStorage, meta.MediaStorageSOPInstanceUID
    data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = (
        generate_uid() for _ in range(3)
    )
    data.Modality, data.PatientID, data.ImageType = "MR", "p", ["ORIGINAL", "PRIMARY", "M", "NONE"]
    data.Rows, data.Columns, data.NumberOfFrames = voxels.shape[1], voxels.shape[0], voxels.shape[2]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
    data.PixelData = np.ascontiguousarray(voxels.T, "<i2").tobytes()
    return data


def _item(sequence: str, **values: object) -> Dataset:
    out, inner = Dataset(), Dataset()
    for name, value in values.items():
        setattr(inner, name, value)
    setattr(out, sequence, [inner])
    return out


def _scale(slope: float, intercept: float) -> Dataset:
    return _item(
        "PixelValueTransformationSequence", RescaleSlope=slope, RescaleIntercept=intercept, RescaleType="US"
    )
