"""Folders of DICOM files as studies, and label maps for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
from dicom_phantom import phantom_series
from pydicom.dataset import Dataset
from segmed.data.phantom import Phantom
from segmed.server.config.dicomweb_settings import DicomwebSettings
from segmed.server.datastores.dicom_folder import DicomFolderStudies

SHAPE = (24, 20, 6)
NAMES = ["liver", "Milz größer"]
INFO = {"label_info": [{"name": name, "idx": 7 + n} for n, name in enumerate(NAMES)], "model": "medsam"}


def series_uid(folder: Path) -> str:
    return str(pydicom.dcmread(next(folder.rglob("*.dcm")), stop_before_pixels=True).SeriesInstanceUID)


def change_file(path: Path, change: Callable[[Dataset], None]) -> None:
    data = pydicom.dcmread(path)
    change(data)
    data.save_as(path)


def series_of_kind(folder: Path, modality: str) -> Phantom:
    """One slice under the name of a modality."""
    phantom = phantom_series(folder, shape=(24, 20, 1))
    change_file(folder / "000.dcm", lambda data: setattr(data, "Modality", modality))
    return phantom


def label_map_of(phantom: Phantom) -> np.ndarray:
    labels = np.zeros(phantom.image.shape, np.uint8)
    labels[3:9, 4:10, 1:4] = 1
    labels[12:20, 8:15, 2:6] = 2
    return labels


def nifti_file(path: Path, labels: np.ndarray, affine: np.ndarray) -> str:
    nib.save(nib.Nifti1Image(labels, affine), path)
    return str(path)


def open_studies(root: Path) -> DicomFolderStudies:
    store = DicomFolderStudies(root, DicomwebSettings().modalities)
    store.files.every = 0
    return store
