"""Label maps of a datastore as DICOM SEG, and back."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from highdicom.seg import Segmentation

import segmed
from segmed.dicom.codes import SegmentCodes
from segmed.dicom.segmentation import write_segmentation
from segmed.dicom.segmentation_reading import read_dicom_segments
from segmed.dicom.series import Series, open_series
from segmed.imaging.grid import Grid
from segmed.imaging.labels.provenance import Provenance
from segmed.imaging.labels.segments import Segments


def label_to_seg(
    found: Segments,
    info: Mapping[str, Any],
    folder: Path,
    grid: Grid,
    out: Path,
    codes: Mapping[str, SegmentCodes] | None,
    edition: int = 0,
) -> Segmentation:
    """Write a label map as DICOM SEG.

    Args:
        found: on the grid of the image, with names.
        info: of the label: `model`, a name or an object of `name`, `version` and `automatic`; and
            `provenance`, how the masks of single structures were made, by their names.
        folder: of the series.
        grid: of the image.
        out: file to write.
        codes: of segments, by name.
        edition: which segmentation of the series it is, from 1 on; 0 where they are not counted. One that is
            written again has the UIDs of before, so that a PACS keeps it once.

    Raises:
        ValueError: the mask is empty, or cannot be attached to the series.
    """
    told = info.get("model") or ""
    model = told if isinstance(told, Mapping) else {"name": told}
    series = open_series(folder, grid)
    return write_segmentation(
        found,
        (),
        series,
        out,
        str(model.get("name") or "")[:64],
        str(model.get("version") or info.get("model_version") or segmed.__version__)[:64],
        model.get("automatic") is True,
        codes,
        seed=_seed(found, series, edition) if edition else "",
        edition=edition,
        records=readable_records(info.get("provenance")),
    )


def readable_records(told: Any) -> dict[str, Provenance]:
    """The records of structures by name, as the info of a label has them; what is none is left out."""
    found = {}
    for name, record in told.items() if isinstance(told, Mapping) else ():
        with contextlib.suppress(ValueError):
            found[str(name)] = Provenance.from_json(record)
    return found


def _seed(found: Segments, series: Series, edition: int) -> str:
    """What tells one segmentation from all others: the series, how often it was saved, and the voxels."""
    digest = hashlib.sha256()
    for layer in found.layers:
        digest.update(layer.tobytes())
    names = [(segment.value, segment.name) for segment in found.segments]
    return f"{series.headers[0].SeriesInstanceUID} {edition} {names} {digest.hexdigest()}"


def seg_to_label(file: Path, folder: Path, grid: Grid, structures: Mapping[str, int]) -> tuple[Segments, str]:
    """Read a DICOM SEG, from whatever maker, on the grid of its image.

    Args:
        file: the SEG.
        folder: of the series.
        grid: of the image.
        structures: values by name, which count if they name all segments; else the numbers of the segments
            do.

    Returns:
        The segments, and a sentence on what was changed in reading, or "".

    Raises:
        ValueError: it cannot be read, or does not lie on the series.
    """
    series = open_series(folder, grid)
    found, note = read_dicom_segments(file, series)
    names = [segment.name for segment in found.segments]
    if structures.keys() >= set(names) and len(set(names)) == len(names):
        return read_dicom_segments(file, series, structures)
    return found, note
