"""Label maps to the files that users take home."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segmed.dicom.codes import SegmentCodes
from segmed.dicom.label_maps import readable_records
from segmed.dicom.rtstruct import write_rtstruct
from segmed.dicom.segmentation import write_segmentation
from segmed.dicom.series import open_series
from segmed.imaging.grid import Grid
from segmed.imaging.labels.segments import Segments, colour_of
from segmed.imaging.labels.sidecar import sidecar_text
from segmed.imaging.labels.writing import write_labels
from segmed.imaging.reading import extension_of
from segmed.server.http.errors import BadRequest


def write_download(
    found: Segments,
    grid: Grid,
    image: str,
    out: Path,
    kind: str,
    model: str,
    version: str,
    codes: Mapping[str, SegmentCodes] | None = None,
    records: Mapping[str, Any] | None = None,
) -> None:
    """Write a label map.

    Args:
        found: on the grid of the image.
        grid: of the image.
        image: path of the image.
        out: file to write.
        kind: `nifti`, `nrrd`, which is a segmentation of 3D Slicer, `names`, which is the table of names and
            colours that belongs to the NIfTI file, `seg` or `rtstruct`.
        model: that made the labels; "" for those drawn by hand.
        version: of the model.
        codes: of structures by name, beside those that are known.
        records: how labels were made, by name, for `seg`; see `Provenance.to_json`.

    Raises:
        BadRequest: DICOM is asked for of an image that is none.
        ValueError: the mask is empty, or cannot be attached to its series.
    """
    if kind == "names":
        out.write_text(sidecar_text(s.coloured(colour_of(s.value)) for s in found.segments), encoding="utf-8")
        return
    if kind in ("nifti", "nrrd"):
        assert grid.affine is not None
        write_labels(found, grid.affine, out, like=image)
        return
    if not Path(image).is_dir() and extension_of(image) != ".dcm":
        raise BadRequest(
            "This image is no DICOM series, so there is nothing that a DICOM object could refer to. "
            "Download NIfTI, or serve the DICOM series."
        )
    series = open_series(image, grid)
    if kind == "seg":
        known = readable_records(records or {})
        write_segmentation(found, (), series, out, model, version, codes=codes, records=known)
    else:
        write_rtstruct(found, (), series, out, model, version, codes=codes)
