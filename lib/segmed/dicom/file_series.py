"""DICOM series as groups of files: the facts of their headers, and files that are copies of each other."""

from __future__ import annotations

import functools
import hashlib
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Corner = tuple[float, ...]  # position in LPS mm, (x, y, z); () where it is not stated


@dataclass(frozen=True)
class SeriesFacts:
    """Facts about a series from its headers.

    Attributes:
        series: SeriesInstanceUID.
        study: StudyInstanceUID.
        modality: DICOM term.
        description: SeriesDescription, a free text.
        date: Date of the study, YYYYMMDD.
        patient: PatientID.
        number: SeriesNumber.
        slices: Number of files.
        patient_name: PatientName as DICOM writes it, `Doe^Jane`.
    """

    series: str
    study: str
    modality: str = ""
    description: str = ""
    date: str = ""
    patient: str = ""
    number: int = 0
    slices: int = 0
    patient_name: str = ""

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
        """The facts for clients, under the names that they use."""
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
            "PatientName": ", ".join(filter(None, self.patient_name.split("=")[0].split("^")[:2])),
        }


@dataclass(frozen=True)
class FoundSeries:
    """A series on disk.

    Attributes:
        facts: Facts from the headers of the series.
        files: Files in the order of InstanceNumber.
        refers_to: UIDs of the series that this one refers to, as a segmentation does.
        made: Time of creation, as text that sorts by time.
        repeated: Whether each place has the same number of slices, more than one, as in a time series.
        unassigned: Why this segmentation is assigned to no series; "" for all others.
    """

    facts: SeriesFacts
    files: tuple[Path, ...]
    refers_to: tuple[str, ...] = ()
    made: str = ""
    repeated: bool = False
    unassigned: str = ""


@dataclass(frozen=True)
class FileFacts:
    """The facts of a header that are kept in memory."""

    stamp: tuple[int, int]
    facts: SeriesFacts | None = None
    instance: str = ""
    number: int = 0
    refers_to: tuple[str, ...] = ()
    made: str = ""
    damaged: bool = False
    place: str = ""
    corner: Corner = ()
    frame_of_reference: str = ""


def corner_of(value: Any) -> Corner:
    """ImagePositionPatient as three finite numbers; () if it is not that."""
    try:
        numbers = tuple(float(number) for number in value)
    except (TypeError, ValueError):
        return ()
    return numbers if len(numbers) == 3 and all(map(math.isfinite, numbers)) else ()


def group_by_series(headers: dict[Path, FileFacts]) -> dict[str, FoundSeries]:
    """Series by UID; copies of a file count once, different files with one instance UID count each."""
    groups: dict[str, dict[str, list[tuple[Path, FileFacts]]]] = {}
    for path, header in headers.items():
        if header.facts is not None:
            same = groups.setdefault(header.facts.series, {}).setdefault(header.instance or str(path), [])
            same.append((path, header))
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
            tuple(dict.fromkeys(uid for _, header in files for uid in header.refers_to)),
            max(header.made for _, header in files),
            _repeated([header.place for _, header in files]),
        )
    return series


def _without_copies(same: list[tuple[Path, FileFacts]]) -> Iterator[tuple[Path, FileFacts]]:
    """Files of one instance UID, each content once."""
    if len(same) == 1:
        yield same[0]
        return
    yield from {_digest(path, header.stamp): (path, header) for path, header in reversed(same)}.values()


def _repeated(places: list[str]) -> bool:
    """Whether all places hold the same number of slices, more than one; if only some do, it is damage."""
    counts = set(Counter(places).values())
    return all(places) and len(counts) == 1 and counts.pop() > 1


@functools.lru_cache(maxsize=100_000)
def _digest(path: Path, stamp: tuple[int, int]) -> bytes:
    """Digest of the content of a file; `stamp` changes when the content does."""
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError:
        return str(path).encode()
