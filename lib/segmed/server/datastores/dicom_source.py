"""What studies that are DICOM have to offer: their series, the files of these, and DICOM SEG in and out."""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from segmed.dicom.files import SeriesFacts
from segmed.imaging.grid import Grid, read_grid
from segmed.imaging.reading import fingerprint
from segmed.server.datastores.fixed_images import FixedImages

_KEPT_GRIDS = 64
_BELIEVED = 60.0  # s for which a SEG is taken as unreadable


class SeriesGrids:
    """The grids of series, each read from its files once."""

    def __init__(self) -> None:
        self._grids: dict[str, Grid] = {}

    def of(self, folder: Path) -> Grid:
        """The grid of the series in a folder. Raises ValueError if its files are no volume."""
        key = fingerprint(folder)
        if key not in self._grids:
            if len(self._grids) >= _KEPT_GRIDS:
                self._grids.pop(next(iter(self._grids)))
            self._grids[key] = read_grid(folder)
        return self._grids[key]


class UnreadableSegmentations:
    """DICOM SEGs that could not be read, so that not every request fetches and reads one again."""

    def __init__(self) -> None:
        self._reasons: dict[str, tuple[float, str]] = {}  # when and why, by SEG series

    def note(self, series: str, reason: str) -> None:
        """Remember for a minute why the SEG of a series cannot be read."""
        self._reasons[series] = (time.monotonic(), reason)

    def raise_again(self, series: str) -> None:
        """Raises ValueError with the reason if the SEG of this series could not be read a moment ago."""
        when, reason = self._reasons.get(series, (-math.inf, ""))
        if time.monotonic() - when < _BELIEVED:
            raise ValueError(reason)
        self._reasons.pop(series, None)


class DicomSource(FixedImages):
    """Where series come from and where DICOM SEGs go: a PACS, or a folder of DICOM files."""

    @abstractmethod
    def series(self) -> Mapping[str, SeriesFacts]:
        """The series that are images, by UID. Raises BadRequest (424) if they cannot be listed."""

    @abstractmethod
    def facts(self, image: str) -> SeriesFacts:
        """Of one series, listed or not. Raises BadRequest (404, 424)."""

    @abstractmethod
    def use(self, image: str) -> AbstractContextManager[Path]:
        """A folder of the files of a series, which stays while it is used. Raises BadRequest (404, 424)."""

    @abstractmethod
    def segmentations(self) -> Mapping[str, str]:
        """Newest DICOM SEG series by image, as far as known without asking. Raises BadRequest (424)."""

    @abstractmethod
    def segmentation_of(self, image: str) -> str:
        """The newest DICOM SEG series of an image; "" if there is none. Raises BadRequest (404, 424)."""

    @abstractmethod
    def segmentation_file(self, series: str) -> AbstractContextManager[Path]:
        """The file of a DICOM SEG. Raises BadRequest (404, 424)."""

    @abstractmethod
    def send(self, image: str, file: Path, data: Dataset) -> None:
        """Put a new DICOM SEG where others find it. Raises BadRequest (424) or OSError."""

    def ask_again(self) -> None:
        """Ask at once, even where there was no answer a moment ago."""

    def next_edition(self, image: str) -> int:
        """Number of the next DICOM SEG of an image, from 1 on; 0 where a new one replaces the last."""
        return 0

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """`kind`, `state`, which is ok or down, `message`, and `left_out` where something is."""
