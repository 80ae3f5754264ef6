"""Label maps as DICOM Segmentation objects (PS3.3, A.51), written and read on the grid of their series."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from highdicom.sr import CodedConcept
from pydicom.sr.codedict import codes as dictionary
from skimage.color import rgb2lab

import segmed
from segmed.dicom.codes import SegmentCodes
from segmed.dicom.segmentation_reading import LAB_LOW, LAB_RANGE, read_dicom_segments
from segmed.dicom.segments import Names, Segment, as_segments, segments_of
from segmed.dicom.series import UTF8, Series, new_series, save, without_patient
from segmed.imaging.labels.provenance import Provenance
from segmed.imaging.labels.segments import Segments

_SERIES_NUMBER = 301
_FAMILIES: Any = dictionary.cid7162  # of algorithms


def write_segmentation(
    labels: np.ndarray | Segments,
    names: Names,
    series: Series,
    out: str | os.PathLike[str],
    model: str = "",
    version: str = segmed.__version__,
    automatic: bool = False,
    codes: Mapping[str, SegmentCodes] | None = None,
    parameters: Mapping[str, str] | None = None,
    seed: str = "",
    edition: int = 0,
    records: Mapping[str, Provenance] | None = None,
) -> Segmentation:
    """Write a label map as a DICOM SEG that refers to its series slice by slice.

    Segments are numbered 1, 2, … in the order of the values that are present; slices without a segment are
    not stored. Patient and study are those of the series.

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
        parameters: What the model was run with, see `Provenance.dicom_parameters`.
        seed: Text from which the UIDs are derived, see `new_series`.
        edition: Which of the segmentations of the series it is, see `new_series`.
        records: How single segments were made, by their names; it counts before model, version and
            parameters.

    Returns:
        The written dataset.

    Raises:
        ValueError: The mask is empty, or the labels lie on another grid.
        OSError: The file cannot be written.
    """
    stored = as_segments(labels, names)
    segments = segments_of(stored, series, codes)
    made = _algorithm(model, version, parameters)
    seg = Segmentation(
        source_images=[without_patient(header) for header in series.headers],
        pixel_array=_pixels(stored, segments),
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[
            _describe(n, segment, _recorded(records, segment.name) or made, automatic)
            for n, segment in enumerate(segments, start=1)
        ],
        content_description="Segmentation",
        content_label="SEGMENTATION",
        **new_series("Segmentation", _SERIES_NUMBER, model, seed, edition),
    )
    seg.copy_patient_and_study_information(series.headers[0])
    seg.SpecificCharacterSet = UTF8
    save(seg, out)
    return seg


def _pixels(stored: Segments, segments: Sequence[Segment]) -> np.ndarray:
    """Numbers 1, 2, … of the segments, (K, J, I), or masks (K, J, I, S) where they overlap."""
    if len(stored.layers) == 1:
        layer = stored.layers[0]
        number = np.zeros(int(layer.max()) + 1, np.uint8 if len(segments) < 256 else np.uint16)
        number[[segment.value for segment in segments]] = np.arange(1, len(segments) + 1)
        return np.asarray(number[layer.T])
    return np.stack([stored.mask(segment.stored).T for segment in segments], -1).astype(np.uint8)


def _recorded(records: Mapping[str, Provenance] | None, name: str) -> AlgorithmIdentificationSequence | None:
    record = (records or {}).get(name)
    return _algorithm(record.model, record.version, record.dicom_parameters()) if record else None


def _algorithm(
    model: str, version: str, parameters: Mapping[str, str] | None
) -> AlgorithmIdentificationSequence | None:
    if not model:
        return None
    return AlgorithmIdentificationSequence(
        f"SegMed {model}"[:64],
        _FAMILIES.ArtificialIntelligence,
        version[:64],
        parameters=dict(parameters) if parameters else None,
    )


def _describe(
    number: int, segment: Segment, algorithm: AlgorithmIdentificationSequence | None, automatic: bool
) -> SegmentDescription:
    kind = SegmentAlgorithmTypeValues.MANUAL
    if algorithm is not None:
        kind = SegmentAlgorithmTypeValues.AUTOMATIC if automatic else SegmentAlgorithmTypeValues.SEMIAUTOMATIC
    codes = segment.codes
    description = SegmentDescription(
        number,
        segment.name,
        codes.category,
        codes.type,
        kind,
        algorithm,
        anatomic_regions=[codes.region] if codes.region else None,
    )
    if codes.modifier:
        modifier = [CodedConcept(*codes.modifier)]
        description.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = modifier
    lab = (rgb2lab(np.array(segment.colour) / 255) - LAB_LOW) / LAB_RANGE
    description.RecommendedDisplayCIELabValue = (lab * 65535).round().astype(int).tolist()
    return description


def read_segmentation(
    path: str | os.PathLike[str], series: Series, names: Sequence[str] = ()
) -> tuple[np.ndarray, dict[int, str]]:
    """Read a DICOM SEG, from any manufacturer, as one label map; see `read_dicom_segments`.

    Args:
        path: Path of the file.
        series: Series that it was made for, or another one of the same frame of reference.
        names: Names whose places 1, 2, … become the values of the segments of these names; without names, the
            numbers of the segments become the values.

    Returns:
        Label map (I, J, K), uint8 or, for larger values, uint16, with the smaller segment on top where
        segments overlap; and the names of the values.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not a readable segmentation, is of another patient position, or has too many
            segments.
    """
    stored, _ = read_dicom_segments(path, series, {name: value for value, name in enumerate(names, start=1)})
    return stored.flat(), stored.names
