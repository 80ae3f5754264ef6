"""Label maps as DICOM Segmentation objects (PS3.3, A.51), written and read back on the grid of their series."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
from highdicom import AlgorithmIdentificationSequence
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from highdicom.sr import CodedConcept
from nibabel.processing import resample_from_to
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes as dictionary
from pydicom.uid import SegmentationStorage
from skimage.color import rgb2lab

import segmed
from segmed.imaging.grid import Grid
from segmed.server.codes import SegmentCodes
from segmed.server.dicom_segments import Names, Segment, segments_of
from segmed.server.dicom_series import RAS_TO_LPS, UTF8, Series, new_series, save, without_patient

_SERIES_NUMBER = 301
_FAMILIES: Any = dictionary.cid7162  # of algorithms
_LAB_LOW, _LAB_RANGE = np.array([0, -128, -128.0]), np.array([100, 255, 255.0])
_ON_LATTICE = 0.1  # voxels
_UNEVEN = 0.1  # mm


def write_segmentation(
    labels: np.ndarray,
    names: Names,
    series: Series,
    out: str | os.PathLike[str],
    model: str = "",
    version: str = segmed.__version__,
    automatic: bool = False,
    codes: Mapping[str, SegmentCodes] | None = None,
) -> Segmentation:
    """Write a label map as a DICOM SEG that refers to its series slice by slice.

    Segments are numbered 1, 2, … in the order of the values that are present; slices without a segment are not stored.
    Patient and study are those of the series.

    Args:
        labels: (I, J, K) whole numbers on the grid of the series, 0 the background.
        names: of the values, or of 1, 2, … in order; a value without one is called `label 7`.
        series: of `open_series`.
        out: file to write.
        model: that made the labels; "" for labels drawn by hand.
        version: of the model.
        automatic: whether no user prompted the model.
        codes: of the user, see `read_codes`.

    Returns:
        What was written.

    Raises:
        ValueError: an empty mask, or labels on another grid.
        OSError: the file cannot be written.
    """
    segments = segments_of(labels, names, series, codes)
    number = np.zeros(segments[-1].value + 1, np.uint8 if len(segments) < 256 else np.uint16)
    number[[segment.value for segment in segments]] = np.arange(1, len(segments) + 1)
    seg = Segmentation(
        source_images=[without_patient(header) for header in series.headers],
        pixel_array=number[labels.T],  # (K, J, I): slices, rows, columns
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[
            _describe(n, segment, model, version, automatic) for n, segment in enumerate(segments, start=1)
        ],
        content_description="Segmentation",
        content_label="SEGMENTATION",
        **new_series("Segmentation", _SERIES_NUMBER, model),
    )
    seg.copy_patient_and_study_information(series.headers[0])
    seg.SpecificCharacterSet = UTF8
    save(seg, out)
    return seg


def _describe(number: int, segment: Segment, model: str, version: str, automatic: bool) -> SegmentDescription:
    kind, algorithm = SegmentAlgorithmTypeValues.MANUAL, None
    if model:
        kind = SegmentAlgorithmTypeValues.AUTOMATIC if automatic else SegmentAlgorithmTypeValues.SEMIAUTOMATIC
        algorithm = AlgorithmIdentificationSequence(
            f"SegMed {model}"[:64], _FAMILIES.ArtificialIntelligence, version[:64]
        )
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
    lab = (rgb2lab(np.array(segment.colour) / 255) - _LAB_LOW) / _LAB_RANGE
    description.RecommendedDisplayCIELabValue = (lab * 65535).round().astype(int).tolist()
    return description


def read_segmentation(
    path: str | os.PathLike[str], series: Series, names: Sequence[str] = ()
) -> tuple[np.ndarray, dict[int, str]]:
    """Read a DICOM SEG, from whatever maker, as label map on the grid of a series.

    Slices that the file leaves out are empty. Frames that lie on other planes or pixels than the series are resampled
    (nearest). Where segments overlap, the later one wins; fractional ones count from one half on.

    Args:
        path: of the file.
        series: that it was made for, or another one of the same frame of reference.
        names: whose places 1, 2, … become the values of segments of these names; without them values are the
            numbers of the segments.

    Returns:
        (I, J, K) uint8, and the names of the values.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: no readable segmentation, or one of another patient position, or too many segments.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no segmentation at {path}. Check the name.")
    try:
        data = pydicom.dcmread(path)
        data.decode()
        frames = data.pixel_array if data.get("SOPClassUID") == SegmentationStorage else np.zeros(0)
    except Exception as error:
        raise ValueError(f"{path.name} cannot be read: damaged, or not DICOM. Export it again.") from error
    if not frames.size:
        raise ValueError(f"{path.name} is not a DICOM SEG of binary or fractional segments. Give such a file.")
    if data.get("FrameOfReferenceUID") != series.headers[0].get("FrameOfReferenceUID"):
        raise ValueError(
            f"{path.name} belongs to another frame of reference than the series, so nobody knows how they lie to each "
            "other. Give the series that it was made for."
        )
    frames = frames.reshape(-1, data.Rows, data.Columns)
    if data.SegmentationType == "FRACTIONAL":
        frames = frames >= int(data.MaximumFractionalValue) / 2
    found = {int(item.SegmentNumber): str(item.SegmentLabel) for item in data.SegmentSequence}
    values = _values(found, names)
    of_frames = [
        values[int(_group(data, n, "SegmentIdentificationSequence").ReferencedSegmentNumber)]
        for n in range(len(frames))
    ]
    ordered = [(of_frames[n], n) for n in np.argsort(of_frames, kind="stable")]
    labels = np.zeros(series.grid.shape, np.uint8)
    if not series.placed:
        if len(frames) and frames.shape[1:] != labels.shape[1::-1]:
            raise ValueError(f"{path.name} has {frames.shape[2]} × {frames.shape[1]} pixels, not those of its image.")
        for value, n in ordered:
            labels[frames[n].T > 0, 0] = value
        return labels, {values[number]: name for number, name in found.items()}
    affines = [_frame_affine(data, n) for n in range(len(frames))]
    to_voxel = np.linalg.inv(series.affine)
    if all(_shares_voxels(to_voxel @ affine, frames.shape[1:]) for affine in affines):
        for value, n in ordered:
            _place(frames[n], to_voxel @ affines[n], value, labels)
        if frames.any() and not labels.any():
            raise ValueError(f"{path.name} does not lie on the series. Give the series that it was made for.")
    else:
        labels = _resample(frames, affines, ordered, data, series.grid, path.name)
    return labels, {values[number]: name for number, name in found.items()}


def _values(found: Mapping[int, str], names: Sequence[str]) -> dict[int, int]:
    """Label value of each segment number."""
    known = {name: value for value, name in enumerate(names, start=1)}
    fresh: Iterator[int] = iter(range(len(known) + 1, len(known) + len(found) + 1))
    values = {n: (known.get(name) or next(fresh)) if known else n for n, name in found.items()}
    if max(values.values()) > 255:
        raise ValueError(f"The segments reach label value {max(values.values())}; a label map holds 255. Split them.")
    return values


def _group(data: Dataset, frame: int, name: str) -> Dataset:
    """A functional group of a frame, its own or the one that all share.

    Raises:
        ValueError: it is missing.
    """
    own, shared = (data.get(f"{which}FunctionalGroupsSequence") or [] for which in ("PerFrame", "Shared"))
    for item in [*own[frame : frame + 1], *shared[:1]]:
        if item.get(name):
            return item[name].value[0]
    raise ValueError(f"The segmentation does not say the {name} of its frames. Export it again from its source.")


def _frame_affine(data: Dataset, frame: int) -> np.ndarray:
    """(4, 4), column, row and normal of a frame to LPS mm; the third is one mm long."""
    orientation = np.array(_group(data, frame, "PlaneOrientationSequence").ImageOrientationPatient, float)
    between_rows, between_columns = map(float, _group(data, frame, "PixelMeasuresSequence").PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = orientation[:3] * between_columns, orientation[3:] * between_rows
    affine[:3, 2] = np.cross(orientation[:3], orientation[3:])
    affine[:3, 3] = [float(v) for v in _group(data, frame, "PlanePositionSequence").ImagePositionPatient]
    return affine


def _shares_voxels(to_voxel: np.ndarray, size: tuple[int, ...]) -> bool:
    """Whether pixels of a frame (rows, columns) fall on centres of voxels, one on one."""
    rows, columns = size
    corners = to_voxel @ [[0, columns - 1, 0, columns - 1], [0, 0, rows - 1, rows - 1], [0] * 4, [1] * 4]
    steps = np.rint(to_voxel[:3, :2])
    one_voxel = (np.abs(steps).sum(0) == 1).all() and (np.abs(steps).sum(1) <= 1).all()
    return bool(one_voxel and np.abs(corners - np.rint(corners)).max() <= _ON_LATTICE)


def _place(frame: np.ndarray, to_voxel: np.ndarray, value: int, labels: np.ndarray) -> None:
    """Set the voxels that the pixels of a frame fall on; those beyond the image are left out."""
    row, column = np.nonzero(frame)
    voxels = np.rint(to_voxel[:3] @ [column, row, np.zeros_like(row), np.ones_like(row)]).astype(int)
    inside = ((voxels >= 0) & (voxels < np.array(labels.shape)[:, None])).all(0)
    labels[tuple(voxels[:, inside])] = value


def _resample(
    frames: np.ndarray,
    affines: Sequence[np.ndarray],
    ordered: Sequence[tuple[int, int]],
    data: Dataset,
    grid: Grid,
    name: str,
) -> np.ndarray:
    """Frames stacked to a volume of their own, which is brought onto the grid by world coordinates."""
    affine = affines[0].copy()
    heights = np.array([(a[:3, 3] - affine[:3, 3]) @ affine[:3, 2] for a in affines])
    measures = _group(data, 0, "PixelMeasuresSequence")
    gaps = np.diff(np.unique(heights.round(3)))
    step = float(
        measures.get("SpacingBetweenSlices") or (gaps.min() if gaps.size else measures.get("SliceThickness") or 1)
    )
    affine[:3, 3] += heights.min() * affine[:3, 2]
    affine[:3, 2] *= step
    k = np.rint((heights - heights.min()) / step).astype(int)
    expected = [affine @ [0, 0, place, 1] for place in k]
    if max(np.abs(a[:3, 3] - e[:3]).max() for a, e in zip(affines, expected, strict=True)) > _UNEVEN or not all(
        np.allclose(a[:3, :2], affine[:3, :2], atol=1e-4) for a in affines
    ):
        raise ValueError(
            f"The frames of {name} are no evenly spaced parallel planes, nor on those of the series. Export it again, "
            "on the grid of the series."
        )
    shape = (int(data.Columns), int(data.Rows), int(k.max()) + 1)
    stack = np.zeros(shape, np.uint8)
    for value, n in ordered:
        stack[frames[n].T > 0, k[n]] = value
    own = Grid(shape, RAS_TO_LPS @ affine)
    if not own.can_move_to(grid):
        raise ValueError(f"{name} does not lie on the series. Give the series that it was made for.")
    moved = resample_from_to(nib.Nifti1Image(stack, own.affine), (grid.shape, grid.affine), 0, "grid-constant")
    return np.asarray(moved.dataobj).astype(np.uint8)
