"""Where a mask comes from: all that is needed to compute it again, in a JSON file beside it.

The keys follow the BIDS derivatives (`GeneratedBy`), so that other tools understand the first of them.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import segmed
from segmed.imaging.durable import appear_whole
from segmed.imaging.labels.companions import check_companion, companion_of
from segmed.imaging.reading import fingerprint

_EXTENSION = ".json"
_GENERATOR = {"Name": "SegMed", "Version": segmed.__version__}
_LONGEST = 2000  # letters of a prompt in a DICOM attribute; longer ones are replaced by their checksum
_LARGEST = 2**24  # bytes of a file that is read


@dataclass(frozen=True)
class Provenance:
    """How a mask was made.

    Attributes:
        model: Name of the model as the viewers show it.
        version: Version in the registry, or "untrained".
        weights: SHA-256 of the weights, or name and digest of weights that were not trained here.
        image: SHA-256 of the image, see `checksum_of`.
        window: Intensity window.
        prompt: Boxes and clicks in voxels, as JSON values; empty for a model without prompts.
        options: Further options that change the mask, such as the refinement.
        software: Version of SegMed.
    """

    model: str
    version: str
    weights: str
    image: str = ""
    window: str = ""
    prompt: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    software: str = segmed.__version__

    def to_json(self) -> dict[str, Any]:
        """The contents of the file."""
        return {
            "GeneratedBy": [{**_GENERATOR, "Version": self.software}],
            "Model": {"Name": self.model, "Version": self.version, "Weights": self.weights},
            "Image": {"SHA256": self.image, "Window": self.window},
            "Prompt": dict(self.prompt),
            "Options": dict(self.options),
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Provenance:
        """The record of a file, or of an answer of the server.

        Raises:
            ValueError: Something is missing, so that the mask cannot be made again from it.
        """
        try:
            model, image = found["Model"], found["Image"]
            software = str(next(one["Version"] for one in found["GeneratedBy"] if one["Name"] == "SegMed"))
            names = (str(model["Name"]), str(model["Version"]), str(model["Weights"]))
            parts = dict(found["Prompt"]), dict(found["Options"])
            return cls(*names, str(image["SHA256"]), str(image["Window"]), *parts, software)
        except (KeyError, TypeError, ValueError, StopIteration) as error:
            raise ValueError(
                "This is no record of a mask by SegMed: a part of it is missing. Give the .json file beside "
                "a mask, or `provenance` of an answer of the server."
            ) from error

    def dicom_parameters(self) -> dict[str, str]:
        """The same as parameters of a DICOM algorithm (`AlgorithmParameters`)."""
        prompt = json.dumps(dict(self.prompt), sort_keys=True)
        if len(prompt) > _LONGEST:
            prompt = f"sha256:{hashlib.sha256(prompt.encode()).hexdigest()}"
        found = {
            "version": self.version,
            "weights": self.weights,
            "image": self.image,
            "window": self.window,
            "prompt": prompt,
            "software": f"SegMed {self.software}",
        }
        return {name: value for name, value in found.items() if value and value != "{}"}


def provenance_path(mask: str | os.PathLike[str]) -> Path:
    """The JSON file of a mask, whether it exists or not."""
    return companion_of(mask, _EXTENSION)


def check_provenance_path(mask: str | os.PathLike[str]) -> Path:
    """The JSON file of a mask, checked before it is written.

    Raises:
        ValueError: There is a file of another kind at this path, which must not be overwritten.
    """
    return check_companion(mask, _EXTENSION, _is_ours, "the record of a mask")


def write_provenance(provenance: Provenance, mask: str | os.PathLike[str]) -> Path:
    """Write the JSON file beside a mask, and return its path.

    Raises:
        ValueError: There is a file of another kind at its path.
        OSError: The folder cannot be written.
    """
    path = check_provenance_path(mask)
    with appear_whole(path, sync=False) as part:
        part.write_text(json.dumps(provenance.to_json(), indent=1) + "\n", encoding="utf-8")
    return path


def keep_records(records: Mapping[str, Any], labels: str | os.PathLike[str]) -> None:
    """Write beside a label map how each of its labels was made; without records, the file goes.

    A file of another kind stays.

    Args:
        records: Records as `Provenance.to_json` makes them, by the name of the label.
        labels: Path of the label map.

    Raises:
        OSError: The folder cannot be written.
    """
    path = provenance_path(labels)
    if path.exists() and not _is_ours(path):
        return
    if not records:
        path.unlink(missing_ok=True)
        return
    with appear_whole(path, sync=False) as part:
        told = {"GeneratedBy": [_GENERATOR], "Labels": dict(records)}
        part.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def read_provenance(file: str | os.PathLike[str], label: str = "") -> Provenance:
    """Read a file that `write_provenance` or `keep_records` wrote.

    Args:
        file: Path of the file.
        label: Label whose record is wanted, if the file has several.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no such file, or it is not clear which label is wanted.
    """
    path = Path(file)
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"{path.name} is too large for the record of a mask. Give the .json file beside it.")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path.name} is not JSON. Give the .json file beside a mask.") from error
    labels = found.get("Labels") if isinstance(found, dict) else None
    if not isinstance(labels, dict):
        return Provenance.from_json(found)
    wanted = label or (next(iter(labels)) if len(labels) == 1 else "")
    if wanted not in labels:
        raise ValueError(f"{path.name} has the records of {', '.join(labels)}. Name one of these labels.")
    return Provenance.from_json(labels[wanted])


def checksum_of(image: str | os.PathLike[str]) -> str:
    """SHA-256 of an image: of the file, or of a folder's files in the order of their names."""
    path = Path(image)
    if not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for one in sorted(p for p in path.iterdir() if p.is_file()):
        digest.update(checksum_of(one).encode())
    return digest.hexdigest()


def known_checksum_of(image: str | os.PathLike[str]) -> str:
    """`checksum_of` of an image that is asked for again and again: it is read once as long as its path, time
    and size stay the same."""
    return _checksum_by_key(str(image), fingerprint(image))


@functools.lru_cache(256)
def _checksum_by_key(image: str, key: str) -> str:
    return checksum_of(image)


def array_checksum(values: np.ndarray) -> str:
    """SHA-256 of the bytes of an array in C order, such as a mask in a prompt."""
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def _is_ours(path: Path) -> bool:
    if not path.is_file() or path.stat().st_size > _LARGEST:
        return False
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return any(one["Name"] == "SegMed" for one in found["GeneratedBy"])
    except (ValueError, KeyError, TypeError):
        return False
