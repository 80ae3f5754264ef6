"""Label maps of a datastore as DICOM SEG, and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from highdicom.seg import Segmentation

import segmed
from segmed.active.submission import names_of, whole_labels
from segmed.imaging.grid import Grid, read_labels
from segmed.server.codes import SegmentCodes
from segmed.server.dicom_seg import read_segmentation, write_segmentation
from segmed.server.dicom_series import open_series


def read_label(file: str, grid: Grid) -> np.ndarray:
    """(I, J, K) uint8 on the grid of the image, whatever grid the label map has.

    Raises:
        ValueError: unreadable, lies elsewhere, or holds other numbers than 0 to 255.
    """
    labels = whole_labels(read_labels(file, grid))
    if labels.max(initial=0) > 255:
        raise ValueError(f"The label map reaches the value {labels.max()}; 255 is the largest. Number labels from 1.")
    return labels.astype(np.uint8)


def label_to_seg(
    labels: np.ndarray,
    info: Mapping[str, Any],
    folder: Path,
    grid: Grid,
    out: Path,
    structures: Mapping[str, int],
    codes: Mapping[str, SegmentCodes] | None,
) -> Segmentation:
    """Write a label map as DICOM SEG.

    Args:
        labels: (I, J, K) uint8.
        info: of the label: names in `label_info`, in the order of the values; `model`, a name or an object of `name`,
            `version` and `automatic`.
        folder: of the series.
        grid: of the image.
        out: file to write.
        structures: values by name that hold if the info tells no names.
        codes: of segments, by name.

    Raises:
        ValueError: the mask is empty, or cannot be attached to the series.
    """
    told = info.get("model") or ""
    model = told if isinstance(told, Mapping) else {"name": told}
    return write_segmentation(
        labels,
        names_of(info, structures),
        open_series(folder, grid),
        out,
        str(model.get("name") or "")[:64],
        str(model.get("version") or segmed.__version__)[:64],
        model.get("automatic") is True,
        codes,
    )


def seg_to_label(file: Path, folder: Path, grid: Grid) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Read a DICOM SEG, from whatever maker, on the grid of its image.

    Returns:
        (I, J, K) uint8 of the values 1, 2, …, and the `label_info` that names them in this order.

    Raises:
        ValueError: it cannot be read, or does not lie on the series.
    """
    found, names = read_segmentation(file, open_series(folder, grid))
    number = np.zeros(256, np.uint8)
    number[sorted(names)] = np.arange(1, len(names) + 1)
    return number[found], [{"name": names[value], "idx": n} for n, value in enumerate(sorted(names), start=1)]
