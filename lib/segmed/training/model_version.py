"""What is kept of a trained model beside its weights, and how a version on disk is checked."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open

from segmed.evaluation.case_scores import CaseScore
from segmed.methods.trained_facts import read_facts
from segmed.training.gate import Verdict

RECORD = "metrics.json"
WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class DataFingerprint:
    """What a model was trained and validated on, without the data.

    Attributes:
        images: ids.
        labels: SHA-256 of the label file by image id; images without labels have none.
        split: image ids by part, such as train and validation.
    """

    images: tuple[str, ...]
    labels: Mapping[str, str]
    split: Mapping[str, tuple[str, ...]]

    def __post_init__(self) -> None:
        known = set(self.images)
        if strange := sorted(({*self.labels}.union(*self.split.values())) - known):
            raise ValueError(f"{strange[0]!r} has a label or a place in the split, but is none of the images. Add it.")
        for (one, its), (other, others) in combinations(self.split.items(), 2):
            if shared := sorted(set(its) & set(others)):
                raise ValueError(f"{shared[0]!r} is both in {one} and in {other}. An image belongs to one part only.")

    @classmethod
    def of(cls, labels: Mapping[str, Path], split: Mapping[str, tuple[str, ...]]) -> DataFingerprint:
        """Read the checksums of label files.

        Args:
            labels: file by image id.
            split: image ids by part; ids without a label file are images, too.
        """
        images = sorted({*labels}.union(*split.values()))
        return cls(tuple(images), {name: checksum(path) for name, path in sorted(labels.items())}, split)

    @property
    def digest(self) -> str:
        """SHA-256 that is the same for the same data in any order."""
        parts = [
            sorted(self.images),
            sorted(self.labels.items()),
            sorted((k, sorted(v)) for k, v in self.split.items()),
        ]
        return hashlib.sha256(repr(parts).encode()).hexdigest()


@dataclass(frozen=True)
class VersionRecord:
    """The `metrics.json` of a version.

    Attributes:
        scores: Dice and HD95 per validation case and label.
        data: what it was trained on.
        settings: of the training, JSON values.
        parent: version that the training started from; None for the base weights.
        verdict: of the gate; None if it was not asked.
        created: time in UTC, ISO 8601; set by the registry, like the rest.
        code: version of this package.
        files: SHA-256 of all other files of the version by their names.
    """

    scores: tuple[CaseScore, ...]
    data: DataFingerprint
    settings: Mapping[str, Any] = field(default_factory=dict)
    parent: str | None = None
    verdict: Verdict | None = None
    created: str = ""
    code: str = ""
    files: Mapping[str, str] = field(default_factory=dict)

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(ser_json_inf_nan="strings")

    def to_json(self) -> bytes:
        """Strict JSON; infinite distances are the string "Infinity".

        Raises:
            ValueError: settings that JSON does not have.
        """
        return _RECORDS.dump_json(self, indent=2) + b"\n"


_RECORDS = TypeAdapter(VersionRecord)


@dataclass(frozen=True)
class ModelVersion:
    """One immutable version in a registry.

    Attributes:
        name: of the model.
        version: number and first digits of the weights' checksum, such as `0003-9f86d081`.
        folder: holds `config.json`, `weights.safetensors` and `metrics.json`.
        record: None if it cannot be read.
        served: whether it answers prompts now.
        damage: why it must not be served, or "".
    """

    name: str
    version: str
    folder: Path
    record: VersionRecord | None
    served: bool = False
    damage: str = ""


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder but the record, by relative name."""
    files = {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}
    return {name: checksum(path) for name, path in files.items() if name != RECORD}


def read_record(folder: Path, thorough: bool) -> VersionRecord:
    """Read and check a version.

    Args:
        folder: of the version.
        thorough: compare the checksums of all files; else the weights' header and length only.

    Raises:
        ValueError: a file is missing, damaged or changed.
    """
    try:
        facts = (folder / RECORD).read_bytes()
        record = _RECORDS.validate_json(facts)
        read_facts(folder)
        if not (folder / WEIGHTS).is_file():
            raise ValueError(f"{WEIGHTS} is missing")
        with safe_open(folder / WEIGHTS, "pt"):
            pass
        now = file_checksums(folder) if thorough else dict(record.files)
    except ValidationError as error:
        place = ".".join(str(part) for part in error.errors()[0]["loc"]) or "the text"
        raise ValueError(f"{RECORD} is damaged at {place}: {error.errors()[0]['msg']}") from error
    except OSError as error:
        name = f"{Path(error.filename).name} is missing or cannot be read" if error.filename else str(error)
        raise ValueError(name) from error
    except SafetensorError as error:
        raise ValueError(f"{WEIGHTS} is cut off or damaged") from error
    changed = [name for name, digest in record.files.items() if now.get(name) != digest]
    if changed or WEIGHTS not in record.files:
        raise ValueError(f"{(changed or [WEIGHTS])[0]} is not the file that was saved")
    return record
