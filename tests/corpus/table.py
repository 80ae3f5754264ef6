"""The whole table."""

from __future__ import annotations

from pathlib import Path

from corpus import dicom_kinds, nifti_kinds, picture_kinds, text_kinds
from corpus.row import Row

ROWS: tuple[Row, ...] = (
    *text_kinds.rows(),
    *nifti_kinds.rows(),
    *picture_kinds.rows(),
    *dicom_kinds.rows(),
)


def write(row: Row, folder: Path) -> Path:
    """Make the file or folder of a row, in a folder of its own.

    Returns:
        Its path.
    """
    place = folder / row.name.replace(".", "_")
    place.mkdir(parents=True, exist_ok=True)
    path = place / row.name
    row.make(path)
    return path
