"""Measurements of segments as a DICOM structured report of the template TID 1500 (PS3.16)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import highdicom
from highdicom.seg import Segmentation
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    Comprehensive3DSR,
    DeviceObserverIdentifyingAttributes,
    Measurement,
    MeasurementReport,
    ObservationContext,
    ObserverContext,
    ReferencedSegment,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

import segmed
from segmed.dicom.segments import Segment
from segmed.dicom.series import Series, new_series, save

_SERIES_NUMBER = 303
_DCM: Any = codes.DCM
_SCT: Any = codes.SCT
_UCUM: Any = codes.UCUM
_MILLILITRE = Code("ml", "UCUM", "milliliter")
_SQUARE_MM = Code("mm2", "UCUM", "square millimeter")
_MM = Code("mm", "UCUM", "millimeter")
_HOUNSFIELD = Code("[hnsf'U]", "UCUM", "Hounsfield unit")
_NO_UNITS = Code("1", "UCUM", "no units")
# key of a measurement: its code and unit; None for that of the intensities
_CONCEPTS: Mapping[str, tuple[Code, Code | None]] = {
    "volume_ml": (Code("118565006", "SCT", "Volume"), _MILLILITRE),
    "mean_intensity": (Code("373098007", "SCT", "Mean"), None),
    "sd_intensity": (Code("386136009", "SCT", "Standard Deviation"), None),
    "longest_axis_mm": (Code("103339001", "SCT", "Long Axis"), _MM),
    "surface_mm2": (Code("C0JK", "IBSI", "Surface area of mesh"), _SQUARE_MM),
}


def write_measurement_report(
    seg: Segmentation,
    segments: Sequence[Segment],
    measurements: Mapping[int, Mapping[str, Any]],
    series: Series,
    out: str | os.PathLike[str],
    model: str = "",
    version: str = segmed.__version__,
) -> Comprehensive3DSR:
    """Write a report that refers to the segments of a DICOM SEG.

    Args:
        seg: The written SEG.
        segments: Its segments in order, from `segments_of`.
        measurements: Measurements by value of the segment, see `segmed.batch.measurements`; those that are
            None are left out.
        series: The series.
        out: Path of the file to write.
        model: Model that made the segments, "" for labels drawn by hand.
        version: Version of the model.

    Raises:
        ValueError: A segment has no measurement.
        OSError: The file cannot be written.
    """
    header = series.headers[0]
    units = _HOUNSFIELD if header.get("Modality") == "CT" else _NO_UNITS
    algorithm = AlgorithmIdentification(f"SegMed {model}"[:64], version[:64]) if model else None
    groups = []
    for number, segment in enumerate(segments, 1):
        row = measurements.get(segment.value)
        if row is None:
            raise ValueError(f"There is no measurement of the label {segment.value}. Measure all labels.")
        found = [
            Measurement(CodedConcept(*code), float(row[key]), CodedConcept(*(unit or units)))
            for key, (code, unit) in _CONCEPTS.items()
            if row.get(key) is not None
        ]
        groups.append(
            VolumetricROIMeasurementsAndQualitativeEvaluations(
                tracking_identifier=TrackingIdentifier(highdicom.UID(), segment.name),
                referenced_segment=ReferencedSegment.from_segmentation(seg, number),
                finding_type=CodedConcept(*segment.codes.type),
                algorithm_id=algorithm,
                measurements=found,
            )
        )
    device = DeviceObserverIdentifyingAttributes(
        uid=highdicom.UID(), manufacturer_name="SegMed", model_name=f"SegMed {model}".strip()
    )
    report = MeasurementReport(
        observation_context=ObservationContext(
            observer_device_context=ObserverContext(
                observer_type=_DCM.Device, observer_identifying_attributes=device
            )
        ),
        procedure_reported=_SCT.ImagingProcedure,
        imaging_measurements=groups,
    )
    facts = new_series("Measurements", _SERIES_NUMBER, model)
    facts.pop("device_serial_number")
    facts.pop("manufacturer_model_name")
    facts.pop("software_versions")
    dataset = Comprehensive3DSR(
        evidence=[seg, *series.headers], content=report, is_complete=True, is_final=False, **facts
    )
    dataset.copy_patient_and_study_information(header)
    dataset.ManufacturerModelName = f"SegMed {model}".strip()[:64]
    dataset.SoftwareVersions = segmed.__version__
    save(dataset, out)
    return dataset
