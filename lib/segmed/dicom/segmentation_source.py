"""The series of a DICOM SEG that names none, by the images and places that its frames state."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pydicom
from scipy.spatial import KDTree

from segmed.dicom.file_series import Corner, FileFacts, FoundSeries, corner_of

_TAGS = ["SourceImageSequence", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"]
_SAME_PLACE = 0.1  # mm


@dataclass(frozen=True)
class SegmentationSource:
    """What a segmentation without ReferencedSeriesSequence tells of its images.

    Attributes:
        instances: SOPInstanceUID of images that it names.
        corners: Positions of its frames in LPS mm; () where a frame states none.
    """

    instances: frozenset[str]
    corners: frozenset[Corner]


def read_source(path: Path) -> SegmentationSource:
    """Read the source of a segmentation; voxels are not read.

    Raises:
        Exception: Any exception that pydicom raises for damaged files.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they quote headers
        header = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=_TAGS)
        elements = list(header.iterall())
    return SegmentationSource(
        frozenset(str(e.value) for e in elements if e.keyword == "ReferencedSOPInstanceUID"),
        frozenset(corner_of(e.value) for e in elements if e.keyword == "ImagePositionPatient"),
    )


def attach(
    series: Mapping[str, FoundSeries],
    headers: Mapping[Path, FileFacts],
    sources: Mapping[Path, SegmentationSource],
) -> dict[str, FoundSeries]:
    """Series of which segmentations that name no series refer to the one that they were made for.

    Args:
        series: Series by SeriesInstanceUID.
        headers: Facts of their files.
        sources: Source of the files of such segmentations.

    Returns:
        All series; a segmentation for which no series is found says why in `unassigned`.
    """
    found = dict(series)
    for uid, one in series.items():
        if (source := sources.get(one.files[-1])) is not None:
            image, reason = _image_of(source, headers[one.files[-1]].frame_of_reference, series, headers)
            found[uid] = replace(one, refers_to=(image,) if image else (), unassigned=reason)
    return found


def _image_of(
    source: SegmentationSource,
    frame_of_reference: str,
    series: Mapping[str, FoundSeries],
    headers: Mapping[Path, FileFacts],
) -> tuple[str, str]:
    """The series that a segmentation was made for, or "" and the reason why none is taken."""
    parts = {
        uid: [headers[path] for path in one.files]
        for uid, one in series.items()
        if one.facts.modality != "SEG" and not one.facts.modality.startswith("RT")
    }
    same = {
        uid: files
        for uid, files in parts.items()
        if frame_of_reference and files[0].frame_of_reference == frame_of_reference
    }
    named = [uid for uid, files in same.items() if any(f.instance in source.instances for f in files)]
    if len(named) == 1:
        return named[0], ""
    placed = {uid: [f.corner for f in files] for uid, files in same.items() if all(f.corner for f in files)}
    if len(placed) == 1:
        ((uid, corners),) = placed.items()
        if _lie_on(source.corners, corners):
            return uid, ""
        why = "its frames do not lie on the slices of the series that has its frame of reference"
    else:
        why = f"{len(placed) or 'no'} series have its frame of reference"
    return "", (
        f"it does not say which series it was made for (ReferencedSeriesSequence), and {why}. Export it "
        "again from its source, with its series."
    )


def _lie_on(corners: frozenset[Corner], slices: list[Corner]) -> bool:
    """Whether each frame begins where a slice does."""
    if not corners or () in corners:
        return False
    distances, _ = KDTree(np.array(slices)).query(np.array(sorted(corners)))
    return bool(distances.max() <= _SAME_PLACE)
