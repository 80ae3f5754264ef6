"""DICOM SEG (PS3.3, A.51), from whatever maker, read on the grid of a series."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
from nibabel.processing import resample_from_to
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import SegmentationStorage
from skimage.color import lab2rgb

from segmed.dicom.segmentation_frames import frame_affine, group_of
from segmed.dicom.segmentation_limits import MOST_VALUES, check_marked, check_seg_size
from segmed.dicom.series import RAS_TO_LPS, Series
from segmed.imaging.formats.faults import ImageFault
from segmed.imaging.grid import Grid
from segmed.imaging.labels.segments import Segments, StoredSegment, pack, values_in

LABELMAP_STORAGE = "1.2.840.10008.5.1.4.1.1.66.7"
_KINDS = (SegmentationStorage, LABELMAP_STORAGE)
LAB_LOW, LAB_RANGE = np.array([0, -128, -128.0]), np.array([100, 255, 255.0])
_ON_LATTICE = 0.1  # voxels
_UNEVEN = 0.1  # mm
_COARSER = 1.5  # times the distance of the slices of the series, from which on it is told
_LARGEST = 2**16 - 1


@dataclass(frozen=True)
class _Parts:
    """The voxels of a file.

    Attributes:
        places: where each segment has voxels, in a raveled array (Fortran order), by its number.
        grid: of that array.
    """

    places: Mapping[int, np.ndarray]
    grid: Grid


def read_dicom_segments(
    path: str | os.PathLike[str], series: Series, values: Mapping[str, int] | None = None
) -> tuple[Segments, str]:
    """Read a DICOM SEG as segments on the grid of a series, in layers where they overlap.

    Slices that the file leaves out are empty. Frames that lie on other planes or pixels than the series are
    resampled (nearest). Of fractional segments, what is one half or more counts. Label maps (LABELMAP) are
    read as well.

    Args:
        path: of the file.
        series: that it was made for, or another one of the same frame of reference.
        values: of segments by name; those of other names get larger ones. Without it they are the segments'
            numbers.

    Returns:
        The segments, and a sentence for the user on what was changed in reading; "" if nothing was.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: no readable segmentation, or one of another patient position, or too many segments or
            voxels.
    """
    path = Path(path)
    data, frames = _open(path)
    if data.get("FrameOfReferenceUID") != series.headers[0].get("FrameOfReferenceUID"):
        raise ValueError(
            f"{path.name} belongs to another frame of reference than the series, so nobody knows how they "
            "lie to each other. Give the series that it was made for."
        )
    frames = frames.reshape(-1, data.Rows, data.Columns)
    note = ""
    if data.get("SegmentationType") == "FRACTIONAL":
        frames = frames >= int(data.get("MaximumFractionalValue") or 255) / 2
        note = (
            "The segments say how much of each voxel is theirs (FRACTIONAL); voxels from one half on were "
            "taken."
        )
    described = _described(data)
    parts = _parts(data, frames, series, path.name)
    if missing := sorted(parts.places.keys() - described.keys()):
        described |= {n: StoredSegment(f"segment {n}", n) for n in missing}
    numbers = _values({n: s.name for n, s in described.items()}, values or {})
    shape = parts.grid.shape
    layers, where = pack(((numbers[n], parts.places[n]) for n in sorted(parts.places)), shape)
    if parts.grid is series.grid and series.placed and (apart := _coarser(data, series)):
        note = f"{note} {apart}".strip()
    if parts.grid is not series.grid:
        layers = [_resampled(layer, parts.grid, series.grid) for layer in layers]
    segments = tuple(
        replace(segment, value=numbers[n], layer=where.get(numbers[n], 0), layer_value=numbers[n])
        for n, segment in sorted(described.items())
    )
    return Segments(tuple(layers), segments), note


def _coarser(data: Dataset, series: Series) -> str:
    """A sentence if the segmentation states slices that lie farther apart than those of the series."""
    stated = float(group_of(data, 0, "PixelMeasuresSequence").get("SpacingBetweenSlices") or 0)
    step = float(np.linalg.norm(series.affine[:3, 2]))
    if stated < _COARSER * step:
        return ""
    return (
        f"The segmentation has slices {stated:g} mm apart, and the series {step:g} mm: the slices between "
        "are empty. Interpolate them."
    )


def one_text(value: Any) -> str:
    """A text of a header, whose backslashes pydicom takes for separators."""
    return ("\\".join(value) if isinstance(value, MultiValue) else str(value or "")).strip()


def _open(path: Path) -> tuple[Dataset, np.ndarray]:
    if not path.is_file():
        raise FileNotFoundError(f"There is no segmentation at {path}. Check the name.")
    try:
        check_seg_size(path)
        data = pydicom.dcmread(path)
        data.decode()
        frames = data.pixel_array if data.get("SOPClassUID") in _KINDS else np.zeros(0)
    except ImageFault:
        raise
    except Exception as error:
        raise ValueError(f"{path.name} cannot be read: damaged, or not DICOM. Export it again.") from error
    if not frames.size:
        raise ValueError(
            f"{path.name} is not a DICOM SEG of binary or fractional segments. Give such a file."
        )
    return data, frames


def _described(data: Dataset) -> dict[int, StoredSegment]:
    """Name and colour of the segments by number; one without a label is called by its number.

    Raises:
        ValueError: Two segments have one number, so that the file does not tell their voxels apart.
    """
    found: dict[int, StoredSegment] = {}
    for n, item in enumerate(data.get("SegmentSequence") or [], start=1):
        number = int(item.get("SegmentNumber") or (0 if data.SOPClassUID == LABELMAP_STORAGE else n))
        if number <= 0:  # the background of a label map
            continue
        if number in found:
            raise ValueError(
                f"Two segments of the segmentation have the number {number}, so nobody knows which "
                "voxels are whose. Export it again from its source, with another SegmentNumber for each."
            )
        segment = StoredSegment(one_text(item.get("SegmentLabel")) or f"segment {number}", number)
        lab = item.get("RecommendedDisplayCIELabValue")
        if lab is not None and len(lab) == 3:
            rgb = lab2rgb(np.array(lab, float) / 65535 * LAB_RANGE + LAB_LOW)
            r, g, b = (round(255 * float(c)) for c in rgb)
            segment = segment.coloured((r, g, b))
        found[number] = segment
    return found


def _values(found: Mapping[int, str], known: Mapping[str, int]) -> dict[int, int]:
    """Label value of each segment number."""
    after = max(known.values(), default=0) + 1
    fresh: Iterator[int] = iter(range(after, after + len(found)))
    values = {n: (known.get(name) or next(fresh)) if known else n for n, name in found.items()}
    if max(values.values(), default=0) > _LARGEST:
        raise ValueError(
            f"The segments reach the number {max(values.values())}; {_LARGEST} is the largest. Split them."
        )
    return values


def _numbers_of(data: Dataset, frames: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
    """Frame, number of a segment, and its mask (rows, columns) there."""
    labelmap = data.SOPClassUID == LABELMAP_STORAGE or data.get("SegmentationType") == "LABELMAP"
    for n, frame in enumerate(frames):
        if labelmap:
            values = values_in(frame)
            if len(values) > MOST_VALUES:
                raise ImageFault(
                    f"A frame of the label map holds {len(values)} segments; {MOST_VALUES} are the most. "
                    f"Split it."
                )
            for value in values:
                yield n, value, frame == value
        else:
            yield (
                n,
                int(group_of(data, n, "SegmentIdentificationSequence").ReferencedSegmentNumber),
                frame > 0,
            )


def _parts(data: Dataset, frames: np.ndarray, series: Series, name: str) -> _Parts:
    """The voxels of each segment, on the grid of the series if they are on its voxels, else on one of their
    own.

    Raises:
        ValueError: they do not lie on the series.
    """
    if not series.placed:
        width, height, _ = series.grid.shape
        if frames.shape[1:] != (height, width):
            raise ValueError(
                f"{name} has {frames.shape[2]} × {frames.shape[1]} pixels, not those of its image."
            )
        flat = [np.eye(4)] * len(frames)
        return _Parts(_placed(data, frames, flat, series.grid), series.grid)
    affines = [frame_affine(data, n) for n in range(len(frames))]
    to_voxel = np.linalg.inv(series.affine)
    if all(_shares_voxels(to_voxel @ affine, frames.shape[1:]) for affine in affines):
        places = _placed(data, frames, [to_voxel @ affine for affine in affines], series.grid)
        if frames.any() and not any(len(found) for found in places.values()):
            raise ValueError(f"{name} does not lie on the series. Give the series that it was made for.")
        return _Parts(places, series.grid)
    grid, to_stack = _stack_grid(affines, data, name)
    if not grid.can_move_to(series.grid):
        raise ValueError(f"{name} does not lie on the series. Give the series that it was made for.")
    return _Parts(_placed(data, frames, to_stack, grid), grid)


def _placed(
    data: Dataset, frames: np.ndarray, to_voxel: Sequence[np.ndarray], grid: Grid
) -> dict[int, np.ndarray]:
    """Places of each segment in the raveled grid; pixels beyond it are left out."""
    found: dict[int, list[np.ndarray]] = {}
    shape, count = np.array(grid.shape), 0
    for n, number, mask in _numbers_of(data, frames):
        row, column = np.nonzero(mask)
        count += len(row)
        check_marked(count, "the segmentation")
        voxels = np.rint(to_voxel[n][:3] @ [column, row, np.zeros_like(row), np.ones_like(row)]).astype(
            np.int64
        )
        inside = ((voxels >= 0) & (voxels < shape[:, None])).all(0)
        i, j, k = voxels[:, inside]
        found.setdefault(number, []).append(i + shape[0] * (j + shape[1] * k))
    return {number: np.unique(np.concatenate(parts)) for number, parts in found.items()}


def _stack_grid(affines: Sequence[np.ndarray], data: Dataset, name: str) -> tuple[Grid, list[np.ndarray]]:
    """The grid of frames that are parallel and evenly spaced, and pixel (column, row) to its voxels by frame.

    Raises:
        ValueError: they are not.
    """
    affine = affines[0].copy()
    heights = np.array([(a[:3, 3] - affine[:3, 3]) @ affine[:3, 2] for a in affines])
    measures = group_of(data, 0, "PixelMeasuresSequence")
    gaps = np.diff(np.unique(heights.round(3)))
    step = float(
        measures.get("SpacingBetweenSlices")
        or (gaps.min() if gaps.size else measures.get("SliceThickness") or 1)
    )
    affine[:3, 3] += heights.min() * affine[:3, 2]
    affine[:3, 2] *= step
    k = np.rint((heights - heights.min()) / step).astype(int)
    expected = [affine @ [0, 0, place, 1] for place in k]
    if max(
        np.abs(a[:3, 3] - e[:3]).max() for a, e in zip(affines, expected, strict=True)
    ) > _UNEVEN or not all(np.allclose(a[:3, :2], affine[:3, :2], atol=1e-4) for a in affines):
        raise ValueError(
            f"The frames of {name} are no evenly spaced parallel planes, nor on those of the series. Export "
            "it again, on the grid of the series."
        )
    to_stack = []
    for place in k:
        step_to = np.eye(4)
        step_to[2, 3] = place
        to_stack.append(step_to)
    return Grid((int(data.Columns), int(data.Rows), int(k.max()) + 1), RAS_TO_LPS @ affine), to_stack


def _resampled(layer: np.ndarray, own: Grid, grid: Grid) -> np.ndarray:
    """A layer on another grid, nearest by world coordinates."""
    image = nib.Nifti1Image(layer, own.affine)
    return np.asarray(
        resample_from_to(image, (grid.shape, grid.affine), 0, "grid-constant").dataobj, layer.dtype
    )


def _shares_voxels(to_voxel: np.ndarray, size: tuple[int, ...]) -> bool:
    """Whether pixels of a frame (rows, columns) fall on centres of voxels, one on one."""
    rows, columns = size
    corners = to_voxel @ [[0, columns - 1, 0, columns - 1], [0, 0, rows - 1, rows - 1], [0] * 4, [1] * 4]
    steps = np.rint(to_voxel[:3, :2])
    one_voxel = (np.abs(steps).sum(0) == 1).all() and (np.abs(steps).sum(1) <= 1).all()
    return bool(one_voxel and np.abs(corners - np.rint(corners)).max() <= _ON_LATTICE)
