"""Fixtures that several parts share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from segmed.data.phantom import Phantom, make_phantom

WriteSeries = Callable[..., list[Path]]


@pytest.fixture(scope="session")
def phantom() -> Phantom:
    """A coarse CT phantom."""
    return make_phantom("CT", shape=(96, 80, 16), spacing=(3.6, 3.6, 12.0), seed=3)


@pytest.fixture(scope="session")
def phantom_file(phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phantom's image as NIfTI."""
    path = tmp_path_factory.mktemp("phantom") / "phantom.nii.gz"
    nib.save(nib.Nifti1Image(phantom.image, phantom.affine), path)
    return path


@pytest.fixture
def write_series() -> WriteSeries:
    """Writes stored voxels as one DICOM series, see `_write_series`."""
    return _write_series


def _write_series(
    folder: Path,
    stored: np.ndarray,
    affine: np.ndarray,
    names: Sequence[str] | None = None,
    slope: float = 1.0,
    intercept: float = 0.0,
    modality: str = "CT",
) -> list[Path]:
    """One file per slice along k.

    Args:
        folder: made if missing.
        stored: (I, J, K) int16 before rescaling.
        affine: (4, 4) voxel to RAS mm; the third column has to be normal to the slices.
        names: file name of each slice.
        slope: rescale slope.
        intercept: rescale intercept.
        modality: DICOM term.
    """
    folder.mkdir(exist_ok=True)
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    directions = lps[:3, :3] / spacing
    paths = []
    for k in range(stored.shape[2]):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        path = folder / (names[k] if names else f"{k:03d}.dcm")
        data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
        data.is_little_endian, data.is_implicit_VR = True, False
        data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = study, series, frame
        data.Modality, data.PatientID, data.PatientName = modality, "phantom", "Phantom"
        data.InstanceNumber = k + 1
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
