"""The records of trained model versions, and the check of a version on disk."""

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
from segmed.methods.base.trained_facts import read_facts
from segmed.registry.gate import Verdict

RECORD = "metrics.json"
WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class DataFingerprint:
    """The identity of the data that a model was trained and validated on, without the data.

    Attributes:
        images: Image ids.
        labels: SHA-256 of the label file by image id; images without labels have none.
        split: Image ids by part, such as train and validation.
    """

    images: tuple[str, ...]
    labels: Mapping[str, str]
    split: Mapping[str, tuple[str, ...]]

    def __post_init__(self) -> None:
        known = set(self.images)
        if strange := sorted(({*self.labels}.union(*self.split.values())) - known):
            raise ValueError(
                f"{strange[0]!r} has a label or a place in the split, but is none of the images. "
                "Add it to the images."
            )
        for (one, its), (other, others) in combinations(self.split.items(), 2):
            if shared := sorted(set(its) & set(others)):
                raise ValueError(
                    f"{shared[0]!r} is both in {one} and in {other}. An image belongs to one part only."
                )

    @classmethod
    def of(cls, labels: Mapping[str, Path], split: Mapping[str, tuple[str, ...]]) -> DataFingerprint:
        """Read the checksums of label files.

        Args:
            labels: Label file by image id.
            split: Image ids by part; ids without a label file become images as well.
        """
        images = sorted({*labels}.union(*split.values()))
        return cls(tuple(images), {name: checksum(path) for name, path in sorted(labels.items())}, split)

    @property
    def digest(self) -> str:
        """SHA-256 that does not depend on the order of the data."""
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
        data: Fingerprint of the training and validation data.
        settings: Settings of the training, JSON values.
        parent: Version that the training started from; None for the base weights.
        verdict: Decision of the gate; None if it was not applied.
        created: Time in UTC, ISO 8601; set by the registry, as are the following fields.
        code: Version of this package.
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
        """Encode as strict JSON; infinite distances become the string "Infinity".

        Raises:
            ValueError: If settings cannot be encoded as JSON.
        """
        return _RECORDS.dump_json(self, indent=2) + b"\n"


_RECORDS = TypeAdapter(VersionRecord)


@dataclass(frozen=True)
class ModelVersion:
    """One immutable version in a registry.

    Attributes:
        name: Name of the model.
        version: Number and first digits of the weights' checksum, such as `0003-9f86d081`.
        folder: Folder with `config.json`, `weights.safetensors` and `metrics.json`.
        record: The record, or None if it cannot be read.
        served: Whether the version answers prompts now.
        damage: The reason why it must not be served, or "".
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
    """SHA-256 of every file in a folder except for the record, by relative name."""
    files = {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}
    return {name: checksum(path) for name, path in files.items() if name != RECORD}


def read_record(folder: Path, thorough: bool) -> VersionRecord:
    """Read and check a version.

    Args:
        folder: Folder of the version.
        thorough: Whether to compare the checksums of all files instead of the weights' header and length
            only.

    Raises:
        ValueError: If a file is missing, damaged or changed.
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
