"""DICOM files anywhere below a folder, grouped by series."""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import shutil
import stat
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pydicom

from segmed.dicom.file_series import FileFacts, FoundSeries, SeriesFacts, corner_of, group_by_series
from segmed.dicom.segmentation_source import SegmentationSource, attach, read_source
from segmed.imaging.formats.dicom_faults import is_dicom

logger = logging.getLogger(__name__)

_TAGS = [
    "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "Modality", "SeriesDescription", "StudyDate",
    "PatientID", "SeriesNumber", "InstanceNumber", "ReferencedSeriesSequence", "ContentDate", "ContentTime",
    "ImagePositionPatient", "ImageOrientationPatient", "PatientName", "FrameOfReferenceUID",
]  # fmt: skip
_LOOKED_AT = 20_000  # files, until a folder counts as one without DICOM
_ROOT_OF_MADE_UIDS = "2.25."


def holds_dicom(root: Path) -> bool:
    """Whether one of the first files below a folder is DICOM; hidden ones do not count."""
    return any(is_dicom(path) for path, _ in islice(_files(root), _LOOKED_AT))


def holds_more_dicom(root: Path, than: int) -> bool:
    """Whether more than `than` of the first files below a folder are DICOM."""
    dicom = (path for path, _ in islice(_files(root), _LOOKED_AT) if is_dicom(path))
    return sum(1 for _ in islice(dicom, than + 1)) > than


@dataclass
class DicomFiles:
    """The series below a folder. Files that come or go are noticed by their time; only new ones are read.

    Attributes:
        root: Folder to search; hidden files and the folder `labels`, which SegMed writes, are left out.
        every: Time between two searches in seconds.
    """

    root: Path
    every: float = 10.0
    _headers: dict[Path, FileFacts] = field(default_factory=dict, init=False, repr=False)
    _sources: dict[Path, SegmentationSource] = field(default_factory=dict, init=False, repr=False)
    _series: dict[str, FoundSeries] = field(default_factory=dict, init=False, repr=False)
    _linked: dict[str, tuple[Path, ...]] = field(default_factory=dict, init=False, repr=False)
    _links: Path | None = field(default=None, init=False, repr=False)
    _looked: float = field(default=float("-inf"), init=False, repr=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, init=False, repr=False)

    def series(self) -> dict[str, FoundSeries]:
        """All series by SeriesInstanceUID, whatever their modality."""
        with self._lock:
            if time.monotonic() - self._looked >= self.every:
                self._look()
                self._looked = time.monotonic()
            return self._series

    def damaged(self) -> list[Path]:
        """Files that are marked as DICOM but whose header cannot be read."""
        self.series()
        return sorted(path for path, header in self._headers.items() if header.damaged)

    def forget(self) -> None:
        """Search again at the next request."""
        self._looked = float("-inf")

    def folder_of(self, series: str) -> Path:
        """A folder that holds links to the files of a series and nothing else; gone when the process ends.

        Raises:
            FileNotFoundError: There is no such series.
        """
        with self._lock:
            stored = self.series().get(series)
            if stored is None:
                raise FileNotFoundError(f"There is no series {series} in the studies any more.")
            if self._links is None:
                self._links = Path(tempfile.mkdtemp(prefix="series-"))
                atexit.register(shutil.rmtree, self._links, ignore_errors=True)
            folder = self._links / series
            if self._linked.get(series) != stored.files:
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                for n, path in enumerate(stored.files):
                    _link(folder / f"{n:06d}.dcm", path)
                self._linked[series] = stored.files
            return folder

    def _look(self) -> None:
        headers: dict[Path, FileFacts] = {}
        for path, facts in _files(self.root):
            stamp = facts.st_mtime_ns, facts.st_size
            known = self._headers.get(path)
            headers[path] = known if known and known.stamp == stamp else _read(self.root, path, stamp)
        if headers != self._headers:
            self._sources = {
                path: self._sources[path] if self._headers.get(path) == header else _source(path)
                for path, header in headers.items()
                if header.facts is not None and header.facts.modality == "SEG" and not header.refers_to
            }
            self._headers, self._series = headers, attach(group_by_series(headers), headers, self._sources)


def _link(name: Path, file: Path) -> None:
    """Give a file a second name; Windows wants a privilege for symbolic links, and none for hard ones."""
    try:
        name.symlink_to(file)
    except OSError:
        if os.name != "nt":
            raise
        name.hardlink_to(file)


def _files(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Files below a folder, in a stable order."""
    for folder, inner, names in os.walk(root):
        top = Path(folder) == root
        inner[:] = sorted(
            name for name in inner if not name.startswith(".") and not (top and name == "labels")
        )
        for name in sorted(names):
            if not name.startswith("."):
                path = Path(folder, name).absolute()
                try:
                    facts = path.stat()
                except OSError:  # gone by now, or a dangling link
                    continue
                if stat.S_ISREG(facts.st_mode):  # pipes would be waited for
                    yield path, facts


def _read(root: Path, path: Path, stamp: tuple[int, int]) -> FileFacts:
    if path.name.upper() == "DICOMDIR" or not is_dicom(path):
        return FileFacts(stamp)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they quote headers
            header = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=_TAGS)
            text = {name: str(header.get(name) or "").strip() for name in _TAGS}
            corner = corner_of(header.get("ImagePositionPatient"))
            refers_to = tuple(
                str(item.SeriesInstanceUID) for item in header.get("ReferencedSeriesSequence") or ()
            )
    except Exception as error:  # damaged files make pydicom raise anything
        logger.info("a file of the studies is not readable as DICOM: %s", type(error).__name__)
        return FileFacts(stamp, damaged=True)
    if not _is_uid(text["SeriesInstanceUID"]):
        text["SeriesInstanceUID"] = _made_uid(root, path, text["StudyInstanceUID"])
    facts = SeriesFacts(
        text["SeriesInstanceUID"],
        text["StudyInstanceUID"],
        text["Modality"],
        text["SeriesDescription"],
        text["StudyDate"],
        text["PatientID"],
        whole(text["SeriesNumber"]),
        patient_name=text["PatientName"],
    )
    made = text["ContentDate"] + text["ContentTime"]
    place = text["ImagePositionPatient"] and text["ImagePositionPatient"] + text["ImageOrientationPatient"]
    return FileFacts(
        stamp,
        facts,
        text["SOPInstanceUID"],
        whole(text["InstanceNumber"]),
        refers_to,
        made,
        place=place,
        corner=corner,
        frame_of_reference=text["FrameOfReferenceUID"],
    )


def _source(path: Path) -> SegmentationSource:
    """What a segmentation that names no series tells of its images; nothing if it is damaged."""
    try:
        return read_source(path)
    except Exception as error:  # damaged files make pydicom raise anything
        logger.info("the frames of a segmentation cannot be read: %s", type(error).__name__)
        return SegmentationSource(frozenset(), frozenset())


def _is_uid(text: str) -> bool:
    return (
        bool(text.strip("."))
        and len(text) <= 64
        and ".." not in text
        and all(c in "0123456789." for c in text)
    )


def _made_uid(root: Path, path: Path, study: str) -> str:
    """A UID for files that state no series: those of one folder and study form one."""
    key = f"{path.parent.relative_to(root.absolute())}\0{study}"
    return _ROOT_OF_MADE_UIDS + str(int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "big"))


def whole(value: Any) -> int:
    """The value as an integer; 0 if it is not one."""
    try:
        return int(value)
    except (TypeError, ValueError):
        return 0
