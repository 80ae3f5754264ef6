"""Volumes as DICOM series, one file per slice: for trying a PACS without patient data."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from segmed.data.phantom.volume import make_phantom

_CLASSES = {"CT": pydicom.uid.CTImageStorage, "MR": pydicom.uid.MRImageStorage}


def write_series(
    folder: str | os.PathLike[str],
    stored: np.ndarray,
    affine: np.ndarray,
    names: Sequence[str] | None = None,
    slope: float = 1.0,
    intercept: float = 0.0,
    modality: str = "CT",
    patient: str = "Phantom",
    description: str = "phantom",
) -> list[Path]:
    """Write stored voxels as one series of a study of its own.

    Args:
        folder: made if missing.
        stored: (I, J, K) int16 before rescaling.
        affine: (4, 4) voxel to RAS mm; the third column has to be normal to the slices.
        names: file name of each slice.
        slope: rescale slope.
        intercept: rescale intercept.
        modality: DICOM term.
        patient: name and id.
        description: of the study and the series.

    Returns:
        Paths in the order of k.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    directions = lps[:3, :3] / spacing
    paths = []
    for k in range(stored.shape[2]):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = _CLASSES.get(modality, pydicom.uid.CTImageStorage)
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        path = folder / (names[k] if names else f"{k:03d}.dcm")
        data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
        data.is_little_endian, data.is_implicit_VR = True, False
        data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = study, series, frame
        data.Modality, data.PatientID, data.PatientName = (
            modality,
            patient.casefold().replace("^", "-"),
            patient,
        )
        data.PatientBirthDate, data.PatientSex, data.PositionReferenceIndicator = "", "O", ""
        data.StudyID, data.StudyDate, data.StudyTime, data.AccessionNumber = "1", "20260101", "120000", ""
        data.ReferringPhysicianName, data.Manufacturer, data.ImageType = (
            "",
            "SegMed",
            ["DERIVED", "PRIMARY", "AXIAL"],
        )
        data.StudyDescription = data.SeriesDescription = description
        data.SeriesNumber, data.InstanceNumber = 1, k + 1
        data.ImagePositionPatient = [f"{v:.8g}" for v in lps[:3, 3] + k * lps[:3, 2]]
        data.ImageOrientationPatient = [f"{v:.10g}" for v in (*directions[:, 0], *directions[:, 1])]
        data.PixelSpacing = [f"{spacing[1]:.8g}", f"{spacing[0]:.8g}"]  # between rows, then between columns
        data.SliceThickness = f"{spacing[2]:.8g}"
        data.Rows, data.Columns = stored.shape[1], stored.shape[0]
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.PixelRepresentation = 15, 1
        data.RescaleSlope, data.RescaleIntercept = str(slope), str(intercept)
        data.PixelData = np.ascontiguousarray(stored[:, :, k].T, "<i2").tobytes()
        data.save_as(path, write_like_original=False)
        paths.append(path)
    return paths


def write_demo_series(folder: str | os.PathLike[str]) -> list[Path]:
    """The two volumes of the demo study as DICOM, a patient each.

    Returns:
        Paths of the files.
    """
    paths: list[Path] = []
    for modality in ("CT", "MR"):
        phantom = make_phantom(modality, seed=7)
        where = Path(folder) / modality.lower()
        name = f"Phantom^{modality}"
        paths += write_series(
            where, phantom.image, phantom.affine, None, 1, 0, modality, name, f"{modality} phantom"
        )
    return paths
