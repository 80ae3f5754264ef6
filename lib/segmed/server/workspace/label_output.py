"""Label maps to the files that users take home."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from segmed.dicom.codes import SegmentCodes
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
    write = write_segmentation if kind == "seg" else write_rtstruct
    write(found, (), open_series(image, grid), out, model, version, codes=codes)
