"""Label maps as DICOM RT Structure Sets (PS3.3, A.19): closed contours on the slices of the series.

Contours run halfway between the centres of pixels inside and outside (marching squares: Lorensen and Cline,
Marching cubes: A high resolution 3D surface construction algorithm, 1987), so that filling them reproduces
the mask. Holes are joined to the contour around them by a channel of no width, the keyhole of PS3.3
C.8.8.6.3, which readers understand whether they unite or subtract the contours of a slice. Separate parts
become contours of their own."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable, Mapping

import numpy as np
from highdicom.base import SOPClass
from highdicom.sr import CodedConcept
from pydicom.config import IGNORE
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage
from scipy import ndimage
from skimage.measure import find_contours

import segmed
from segmed.dicom.codes import SegmentCodes
from segmed.dicom.segments import Names, Segment, as_segments, segments_of
from segmed.dicom.series import UTF8, Series, new_series, save
from segmed.imaging.labels.masks import bounding_box
from segmed.imaging.labels.segments import Segments

_SERIES_NUMBER = 302
_DETACHED_STUDY = "1.2.840.10008.3.1.2.3.1"  # the class that references to studies name


def write_rtstruct(
    labels: np.ndarray | Segments,
    names: Names,
    series: Series,
    out: str | os.PathLike[str],
    model: str = "",
    version: str = segmed.__version__,
    automatic: bool = False,
    codes: Mapping[str, SegmentCodes] | None = None,
) -> Dataset:
    """Write a label map as a DICOM RTSTRUCT that refers to its series slice by slice.

    Contours lie on the planes of the slices, whatever their orientation; many treatment planning systems take
    axial ones only.

    Args:
        labels: Label map (I, J, K) of integers on the grid of the series, 0 the background; or segments with
            names of their own, which may overlap.
        names: Names of the values, or of 1, 2, … in order; a value without a name is called `label 7`.
        series: Series from `open_series`.
        out: Path of the file to write.
        model: Model that made the labels; "" for labels drawn by hand.
        version: Version of the model.
        automatic: Whether the model ran without a user's prompt.
        codes: Codes of the user, see `read_codes`.

    Returns:
        The written dataset.

    Raises:
        ValueError: The mask is empty, the labels lie on another grid, or the series has no position in the
            patient.
        OSError: The file cannot be written.
    """
    all_segments = as_segments(labels, names)
    segments = segments_of(all_segments, series, codes)
    first = series.headers[0]
    if not series.placed:
        raise ValueError(
            "The image does not say where it lies in the patient, so there is no place for contours. Write a "
            "DICOM SEG."
        )
    rtstruct = SOPClass(
        study_instance_uid=first.StudyInstanceUID,
        sop_class_uid=RTStructureSetStorage,
        modality="RTSTRUCT",
        transfer_syntax_uid=ImplicitVRLittleEndian,  # explicit VR holds 64 kB a contour
        patient_id="",
        patient_name="",
        patient_birth_date="",
        patient_sex="",
        **new_series("Contours", _SERIES_NUMBER, model),
    )
    rtstruct.copy_patient_and_study_information(first)
    rtstruct.SpecificCharacterSet = UTF8
    rtstruct.OperatorsName = ""
    rtstruct.FrameOfReferenceUID = first.FrameOfReferenceUID
    rtstruct.PositionReferenceIndicator = first.get("PositionReferenceIndicator", "")
    rtstruct.StructureSetLabel = "SegMed"
    now = datetime.datetime.now()
    rtstruct.StructureSetDate, rtstruct.StructureSetTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    rtstruct.ReferencedFrameOfReferenceSequence = [_references(series)]
    made = ("AUTOMATIC" if automatic else "SEMIAUTOMATIC") if model else "MANUAL"
    described = f"SegMed {model} {version}"[:64] if model else ""
    rtstruct.StructureSetROISequence = [
        _item(
            ROINumber=number,
            ReferencedFrameOfReferenceUID=first.FrameOfReferenceUID,
            ROIName=segment.name,
            ROIGenerationAlgorithm=made,
            **({"ROIGenerationDescription": described} if described else {}),
        )
        for number, segment in enumerate(segments, start=1)
    ]
    rtstruct.ROIContourSequence = [
        _item(
            ReferencedROINumber=number,
            ROIDisplayColor=list(segment.colour),
            ContourSequence=_contours(all_segments.mask(segment.stored), series),
        )
        for number, segment in enumerate(segments, start=1)
    ]
    rtstruct.RTROIObservationsSequence = [
        _observation(number, segment) for number, segment in enumerate(segments, 1)
    ]
    save(rtstruct, out)
    return rtstruct


def outlines(mask: np.ndarray) -> list[np.ndarray]:
    """Polygons around the parts of a mask, with holes joined by keyholes.

    Args:
        mask: Mask (H, W), boolean. Pixels that share a side belong together.

    Returns:
        An array (N, 2) of points (x, y) in px for each part; N is at least 4, and the first point is not
        repeated.
    """
    parts, _ = ndimage.label(mask)
    polygons = []
    for value, (rows, columns) in enumerate(ndimage.find_objects(parts), start=1):
        part = np.pad(parts[rows, columns] == value, 1).astype(np.uint8)
        offset = (columns.start - 1, rows.start - 1)
        rings = [ring[:-1, ::-1] + offset for ring in find_contours(part, 0.5, fully_connected="low")]
        rings.sort(key=lambda ring: ring[:, 0].min())
        outer, *holes = rings
        for hole in holes:
            outer = _join(outer, hole)
        polygons.append(_corners(outer))
    return polygons


def _join(ring: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """A closed polygon along the ring, through a channel to the hole's leftmost point, around it and back."""
    start = int(hole[:, 0].argmin())
    hole = np.roll(hole, -start, axis=0)
    gate = int(((ring - hole[0]) ** 2).sum(1).argmin())
    return np.concatenate([ring[: gate + 1], hole, hole[:1], ring[gate:]])


def _corners(ring: np.ndarray) -> np.ndarray:
    """The points at which the polygon changes its direction."""
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    turns = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
    return ring[turns | ((before * after).sum(1) < 0)]


def _contours(mask: np.ndarray, series: Series) -> list[Dataset]:
    box = bounding_box(mask)
    assert box is not None  # segments have voxels
    (i0, i1), (j0, j1), (k0, k1) = box
    steps = series.affine[:3, :2]
    contours: list[Dataset] = []
    for k in range(k0, k1 + 1):
        header = series.headers[k]
        corner = np.array(header.ImagePositionPatient, float)
        for polygon in outlines(mask[i0 : i1 + 1, j0 : j1 + 1, k].T):
            points = corner + (polygon + np.array([i0, j0])) @ steps.T
            data = [f"{v:.4f}" for v in points.ravel()]
            contours.append(
                _item(
                    ContourImageSequence=_instances([header]),
                    ContourGeometricType="CLOSED_PLANAR",
                    NumberOfContourPoints=len(points),
                    ContourNumber=len(contours) + 1,
                )
            )
            # checking each of very many numbers would take most of the time
            contours[-1].add(DataElement("ContourData", "DS", data, validation_mode=IGNORE))
    return contours


def _references(series: Series) -> Dataset:
    first = series.headers[0]
    of_series = _item(
        SeriesInstanceUID=first.SeriesInstanceUID, ContourImageSequence=_instances(series.headers)
    )
    study = _item(
        ReferencedSOPClassUID=_DETACHED_STUDY,
        ReferencedSOPInstanceUID=first.StudyInstanceUID,
        RTReferencedSeriesSequence=[of_series],
    )
    return _item(FrameOfReferenceUID=first.FrameOfReferenceUID, RTReferencedStudySequence=[study])


def _instances(headers: Iterable[Dataset]) -> list[Dataset]:
    return [
        _item(ReferencedSOPClassUID=header.SOPClassUID, ReferencedSOPInstanceUID=header.SOPInstanceUID)
        for header in headers
    ]


def _observation(number: int, segment: Segment) -> Dataset:
    code = CodedConcept(*segment.codes.type)
    if segment.codes.modifier:
        code.SegmentedPropertyTypeModifierCodeSequence = [CodedConcept(*segment.codes.modifier)]
    return _item(
        ObservationNumber=number,
        ReferencedROINumber=number,
        RTROIIdentificationCodeSequence=[code],
        RTROIInterpretedType="",
        ROIInterpreter="",
    )


def _item(**elements: object) -> Dataset:
    item = Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return item
