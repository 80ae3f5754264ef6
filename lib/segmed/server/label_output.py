"""Label maps to the files that users take home."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from segmed.imaging.grid import Grid
from segmed.imaging.masks import write_mask
from segmed.imaging.reading import extension_of
from segmed.server.codes import SegmentCodes
from segmed.server.dicom_rtstruct import write_rtstruct
from segmed.server.dicom_seg import write_segmentation
from segmed.server.dicom_series import open_series
from segmed.server.requests import BadRequest


def write_download(
    labels: np.ndarray,
    names: Sequence[str],
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
        labels: (I, J, K) uint8, the values 1, 2, … in the order of `names`.
        names: of the values.
        grid: of the image.
        image: path of the image.
        out: file to write.
        kind: `nifti`, `seg` or `rtstruct`.
        model: that made the labels; "" for those drawn by hand.
        version: of the model.
        codes: of structures by name, beside those that are known.

    Raises:
        BadRequest: DICOM is asked for of an image that is none.
        ValueError: the mask is empty, or cannot be attached to its series.
    """
    if kind == "nifti":
        assert grid.affine is not None
        write_mask(labels, grid.affine, out)
        return
    if not Path(image).is_dir() and extension_of(image) != ".dcm":
        raise BadRequest(
            "This image is no DICOM series, so there is nothing that a DICOM object could refer to. Download NIfTI, or "
            "serve the DICOM series."
        )
    write = write_segmentation if kind == "seg" else write_rtstruct
    write(labels, list(names), open_series(image, grid), out, model, version, codes=codes)
