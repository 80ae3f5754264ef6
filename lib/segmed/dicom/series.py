"""The DICOM series that a segmentation refers to: its headers, slice by slice, on the grid of its image.

Warnings of pydicom and highdicom quote headers, which are patient data, so they are silenced.
"""

from __future__ import annotations

import logging
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

import segmed
from segmed.imaging.durable import appear_whole
from segmed.imaging.formats.dicom_reading import open_dicom
from segmed.imaging.grid import Grid, read_grid

warnings.filterwarnings("ignore", module=r"(pydicom|highdicom)\b")
logging.getLogger("highdicom").setLevel(logging.ERROR)

UTF8 = "ISO_IR 192"
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_IDENTITY = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "Rows", "Columns")
_OF_PATIENT = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex")
_OF_STUDY = ("AccessionNumber", "StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName")
_OFF_GRID = 0.2  # voxels


@dataclass(frozen=True)
class Series:
    """A DICOM series.

    Attributes:
        grid: Grid of the image as `read_volume` returns it.
        headers: Headers by slice k, without pixels, in UTF-8.
        placed: Whether the headers state the positions of the slices in the patient, which single radiographs
            need not.
    """

    grid: Grid
    headers: tuple[Dataset, ...]
    placed: bool

    @property
    def affine(self) -> np.ndarray:
        """(4, 4), voxel (i, j, k) to the coordinates of DICOM, which are left-posterior-superior, in mm."""
        assert self.grid.affine is not None
        return RAS_TO_LPS @ self.grid.affine


def open_series(path: str | os.PathLike[str], grid: Grid | None = None) -> Series:
    """Read the headers of a series.

    Args:
        path: Folder of one series, or a single file.
        grid: Grid of its image, if that was read before; None reads the voxels.

    Raises:
        FileNotFoundError: There is no such file or folder.
        ValueError: The files are not one readable series, are multi-frame, or no segmentation can refer to
            them.
    """
    path = Path(path)
    grid = grid or read_grid(path)
    found = open_dicom(path)
    # the reason why a label is kept without a segmentation reaches the user, who may measure on it
    note = f" {found.place_note}" if found.place_note else ""
    try:
        headers = [pydicom.dcmread(file, stop_before_pixels=True, force=True) for file in found.ordered]
        for header in headers:
            header.decode()
            header.SpecificCharacterSet = UTF8
    except Exception as error:
        raise ValueError(
            f"{path.name} is not a DICOM series: {type(error).__name__}. Give one of .dcm files."
        ) from error
    for header in headers:
        if missing := [name for name in _IDENTITY if not header.get(name)]:
            raise ValueError(
                f"{missing[0]} is missing in the series {path.name}, and nothing can refer to it. Export it "
                f"again."
            )
    if len({str(header.SOPInstanceUID) for header in headers}) < len(headers):
        raise ValueError(
            f"Slices of the series {path.name} have the same SOPInstanceUID, so that nothing can refer to "
            "one of them. Export it again from its source, or save the mask as NIfTI."
        )
    if any(int(header.get("NumberOfFrames") or 1) > 1 for header in headers):
        raise ValueError(
            f"{path.name} holds multi-frame DICOM; segmentations are read and written for files of one slice "
            f"each. Convert it, or export NIfTI.{note}"
        )
    placed = all(
        h.get(n)
        for h in headers
        for n in ("FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient")
    )
    series = Series(grid, tuple(headers), placed)
    if placed:
        return _in_order(series, path.name)
    if len(headers) > 1 or headers[0].get("Modality") in ("CT", "MR", "PT"):
        raise ValueError(
            f"The series {path.name} does not say where its slices lie in the patient, so no segmentation "
            f"can be attached to it. Export it again from its source, or save the mask as NIfTI.{note}"
        )
    if "FrameOfReferenceUID" in headers[0]:
        del headers[0].FrameOfReferenceUID  # tells nothing without a position
    return series


def _in_order(series: Series, name: str) -> Series:
    """Headers sorted by slice, with the distances that the positions show."""
    corners = np.array([[*map(float, h.ImagePositionPatient), 1.0] for h in series.headers])
    voxels = (np.linalg.inv(series.affine) @ corners.T).T[:, :3]
    k = np.rint(voxels[:, 2]).astype(int)
    if (
        sorted(k) != list(range(series.grid.shape[2]))
        or np.abs(voxels - np.outer(k, (0, 0, 1))).max() > _OFF_GRID
    ):
        raise ValueError(
            f"The slices of {name} do not lie where its image has them, so a segmentation would be "
            "misplaced. Put one series into a folder of its own, or export it again."
        )
    step = series.affine[:3, 2]
    normal = np.cross(series.affine[:3, 0], series.affine[:3, 1])
    distance = float(abs(step @ normal) / np.linalg.norm(normal))
    for header in series.headers:
        if not header.get("PixelSpacing"):
            raise ValueError(
                f"The series {name} does not state its pixel spacing. Export it again from its source."
            )
        if not header.get("SliceThickness"):
            header.SliceThickness = f"{distance:.6g}"
        if len(series.headers) > 1:
            header.SpacingBetweenSlices = f"{distance:.6g}"
    return Series(series.grid, tuple(series.headers[index] for index in np.argsort(k)), True)


def without_patient(header: Dataset) -> Dataset:
    """A copy without attributes of patient and study, which highdicom checks more strictly than a PACS.

    `copy_patient_and_study_information` restores them as they are.
    """
    plain = Dataset()
    plain.update(header)
    for name in _OF_PATIENT + _OF_STUDY:
        plain[name] = DataElement(name, dictionary_VR(name), "")
    if "LossyImageCompression" in plain and not plain.get("LossyImageCompressionRatio"):
        del plain.LossyImageCompression  # of no use without its ratio, which would be required then
    return plain


def new_series(kind: str, number: int, model: str, seed: str = "", edition: int = 0) -> dict[str, Any]:
    """Arguments of highdicom for a new series with one instance, and for the equipment that made it.

    Args:
        kind: What it holds, for its description.
        number: SeriesNumber.
        model: Model that made it, or "".
        seed: Text from which the UIDs are derived, so that a repeated export gives the same object; "" for
            new UIDs.
        edition: Which of several of its kind about the same images it is, from 1 on; they are numbered one
            after the other. 0 where they are not counted.
    """
    counted = f" version {edition}" if edition else ""
    series, instance = (
        (highdicom.UID(), highdicom.UID())
        if not seed
        else (generate_uid(entropy_srcs=[kind, part, seed]) for part in ("series", "instance"))
    )
    return {
        "series_instance_uid": series,
        "series_number": number + max(0, edition - 1),
        "series_description": f"{kind}{counted} by SegMed {model}".strip()[:64],
        "sop_instance_uid": instance,
        "instance_number": 1,
        "manufacturer": "SegMed",
        "manufacturer_model_name": f"SegMed {model}".strip()[:64],
        "software_versions": segmed.__version__,
        "device_serial_number": "1",
    }


def save(dataset: Dataset, out: str | os.PathLike[str]) -> None:
    """Write a DICOM file; it appears whole or not at all."""
    with appear_whole(Path(out), ".dcm") as name:
        dataset.save_as(name, write_like_original=False)
