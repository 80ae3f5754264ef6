"""DICOM files in a folder, however they are scattered, told apart by series."""

from __future__ import annotations

import atexit
import functools
import hashlib
import logging
import os
import shutil
import stat
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pydicom

from segmed.imaging.dicom_faults import is_dicom

logger = logging.getLogger(__name__)

_TAGS = [
    "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "Modality", "SeriesDescription", "StudyDate",
    "PatientID", "SeriesNumber", "InstanceNumber", "ReferencedSeriesSequence", "ContentDate", "ContentTime",
    "ImagePositionPatient", "ImageOrientationPatient",
]  # fmt: skip
_LOOKED_AT = 20_000  # files, until a folder counts as one without DICOM
_ROOT_OF_MADE_UIDS = "2.25."


@dataclass(frozen=True)
class SeriesFacts:
    """What headers tell of a series.

    Attributes:
        series: SeriesInstanceUID.
        study: StudyInstanceUID.
        modality: DICOM term.
        description: of the series, as somebody typed it.
        date: of the study, YYYYMMDD.
        patient: PatientID.
        number: SeriesNumber.
        slices: number of files.
    """

    series: str
    study: str
    modality: str = ""
    description: str = ""
    date: str = ""
    patient: str = ""
    number: int = 0
    slices: int = 0

    @property
    def owner(self) -> str:
        """A pseudonym of the patient, by which series of one patient are kept together where models learn."""
        if not self.patient.strip():
            return self.series
        return f"patient {hashlib.sha256(self.patient.strip().encode()).hexdigest()[:16]}"

    @property
    def order(self) -> tuple[str, str, int, str]:
        """Key to sort by: study after study, the oldest first."""
        return self.date, self.study, self.number, self.series

    def to_json(self) -> dict[str, Any]:
        """What clients are told, under the names that they know."""
        return {
            "description": self.description or f"{self.modality} {self.number or ''}".strip(),
            "modality": self.modality,
            "date": self.date,
            "slices": self.slices,
            "StudyInstanceUID": self.study,
            "SeriesInstanceUID": self.series,
            "Modality": self.modality,
            "StudyDate": self.date,
            "PatientID": self.patient,
        }


@dataclass(frozen=True)
class FoundSeries:
    """A series on disk.

    Attributes:
        facts: of its headers.
        files: in the order of InstanceNumber.
        refers_to: series that it is about, as a segmentation tells.
        made: when, as text that sorts.
        repeated: whether each place has as many slices, more than one, as of a time series.
    """

    facts: SeriesFacts
    files: tuple[Path, ...]
    refers_to: tuple[str, ...] = ()
    made: str = ""
    repeated: bool = False


@dataclass(frozen=True)
class _File:
    """What is kept of a header."""

    stamp: tuple[int, int]
    facts: SeriesFacts | None = None
    instance: str = ""
    number: int = 0
    refers_to: tuple[str, ...] = ()
    made: str = ""
    damaged: bool = False
    place: str = ""


def holds_dicom(root: Path) -> bool:
    """Whether one of the first files below a folder is DICOM; hidden ones do not count."""
    return any(is_dicom(path) for path, _ in islice(_files(root), _LOOKED_AT))


def holds_more_dicom(root: Path, than: int) -> bool:
    """Whether more than so many of the first files below a folder are DICOM."""
    found = (path for path, _ in islice(_files(root), _LOOKED_AT) if is_dicom(path))
    return sum(1 for _ in islice(found, than + 1)) > than


@dataclass
class DicomFiles:
    """The series below a folder. Files that come or go are noticed by their time; only new ones are read.

    Attributes:
        root: of the folder; what is hidden, and `labels` in it, which is ours, are left out.
        every: s between two looks.
    """

    root: Path
    every: float = 10.0
    _headers: dict[Path, _File] = field(default_factory=dict, init=False, repr=False)
    _series: dict[str, FoundSeries] = field(default_factory=dict, init=False, repr=False)
    _linked: dict[str, tuple[Path, ...]] = field(default_factory=dict, init=False, repr=False)
    _links: Path | None = field(default=None, init=False, repr=False)
    _looked: float = field(default=float("-inf"), init=False, repr=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, init=False, repr=False)

    def series(self) -> dict[str, FoundSeries]:
        """All of them by SeriesInstanceUID, whatever their modality."""
        with self._lock:
            if time.monotonic() - self._looked >= self.every:
                self._look()
                self._looked = time.monotonic()
            return self._series

    def damaged(self) -> list[Path]:
        """Files that say they are DICOM, and whose header cannot be read."""
        self.series()
        return sorted(path for path, found in self._headers.items() if found.damaged)

    def forget(self) -> None:
        """Look again when next asked."""
        self._looked = float("-inf")

    def folder_of(self, series: str) -> Path:
        """A folder that holds links to the files of a series and nothing else; gone when the process ends.

        Raises:
            FileNotFoundError: there is no such series.
        """
        with self._lock:
            found = self.series().get(series)
            if found is None:
                raise FileNotFoundError(f"There is no series {series} in the studies any more.")
            if self._links is None:
                self._links = Path(tempfile.mkdtemp(prefix="series-"))
                atexit.register(shutil.rmtree, self._links, ignore_errors=True)
            folder = self._links / series
            if self._linked.get(series) != found.files:
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                for n, path in enumerate(found.files):
                    (folder / f"{n:06d}.dcm").symlink_to(path)
                self._linked[series] = found.files
            return folder

    def _look(self) -> None:
        headers: dict[Path, _File] = {}
        for path, facts in _files(self.root):
            stamp = facts.st_mtime_ns, facts.st_size
            known = self._headers.get(path)
            headers[path] = known if known and known.stamp == stamp else _read(self.root, path, stamp)
        if headers != self._headers:
            self._headers, self._series = headers, _grouped(headers)


def _files(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Files below a folder, in a stable order."""
    for folder, inner, names in os.walk(root):
        top = Path(folder) == root
        inner[:] = sorted(name for name in inner if not name.startswith(".") and not (top and name == "labels"))
        for name in sorted(names):
            if not name.startswith("."):
                path = Path(folder, name).absolute()
                try:
                    facts = path.stat()
                except OSError:  # gone by now, or a dangling link
                    continue
                if stat.S_ISREG(facts.st_mode):  # pipes would be waited for
                    yield path, facts


def _read(root: Path, path: Path, stamp: tuple[int, int]) -> _File:
    if path.name.upper() == "DICOMDIR" or not is_dicom(path):
        return _File(stamp)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they quote headers
            header = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=_TAGS)
            text = {name: str(header.get(name) or "").strip() for name in _TAGS}
            refers_to = tuple(str(item.SeriesInstanceUID) for item in header.get("ReferencedSeriesSequence") or ())
    except Exception as error:  # damaged files make pydicom raise anything
        logger.info("a file of the studies is no readable DICOM: %s", type(error).__name__)
        return _File(stamp, damaged=True)
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
    )
    made = text["ContentDate"] + text["ContentTime"]
    place = text["ImagePositionPatient"] and text["ImagePositionPatient"] + text["ImageOrientationPatient"]
    return _File(stamp, facts, text["SOPInstanceUID"], whole(text["InstanceNumber"]), refers_to, made, place=place)


def _is_uid(text: str) -> bool:
    return bool(text.strip(".")) and len(text) <= 64 and ".." not in text and all(c in "0123456789." for c in text)


def _made_uid(root: Path, path: Path, study: str) -> str:
    """A UID for files that do not tell their series: those of one folder and study are one."""
    key = f"{path.parent.relative_to(root.absolute())}\0{study}"
    return _ROOT_OF_MADE_UIDS + str(int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "big"))


@functools.lru_cache(maxsize=100_000)
def _digest(path: Path, stamp: tuple[int, int]) -> bytes:
    """Of the content of a file; `stamp` changes when that does."""
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError:
        return str(path).encode()


def whole(value: Any) -> int:
    """A whole number, 0 for what is none."""
    try:
        return int(value)
    except (TypeError, ValueError):
        return 0


def _grouped(headers: dict[Path, _File]) -> dict[str, FoundSeries]:
    """Series by UID; a file that was copied twice counts once, and other files of one instance UID each count."""
    groups: dict[str, dict[str, list[tuple[Path, _File]]]] = {}
    for path, found in headers.items():
        if found.facts is not None:
            same = groups.setdefault(found.facts.series, {}).setdefault(found.instance or str(path), [])
            same.append((path, found))
    series = {}
    for uid, group in groups.items():
        single = [pair for same in group.values() for pair in _without_copies(same)]
        files = sorted(single, key=lambda pair: (pair[1].number, str(pair[0])))
        first = files[0][1]
        assert first.facts is not None
        facts = SeriesFacts(**{**vars(first.facts), "slices": len(files)})
        series[uid] = FoundSeries(
            facts,
            tuple(path for path, _ in files),
            tuple(dict.fromkeys(uid for _, found in files for uid in found.refers_to)),
            max(found.made for _, found in files),
            _repeated([found.place for _, found in files]),
        )
    return series


def _without_copies(same: list[tuple[Path, _File]]) -> Iterator[tuple[Path, _File]]:
    """Files of one instance UID, each content once."""
    if len(same) == 1:
        yield same[0]
        return
    yield from {_digest(path, found.stamp): (path, found) for path, found in reversed(same)}.values()


def _repeated(places: list[str]) -> bool:
    """Whether slices lie at the same places again and again; those of some doubled places are just damaged."""
    counts = set(Counter(places).values())
    return all(places) and len(counts) == 1 and counts.pop() > 1
