"""Where a mask comes from: all that is needed to compute it again, in a JSON file beside it.

The keys follow the BIDS derivatives (`GeneratedBy`), so that other tools understand the first of them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import segmed
from segmed.imaging.durable import appear_whole
from segmed.imaging.formats.seg_nrrd import SEGMENTATION
from segmed.imaging.reading import extension_of

_EXTENSION = ".json"
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
            "GeneratedBy": [{"Name": "SegMed", "Version": self.software}],
            "Model": {"Name": self.model, "Version": self.version, "Weights": self.weights},
            "Image": {"SHA256": self.image, "Window": self.window},
            "Prompt": dict(self.prompt),
            "Options": dict(self.options),
        }

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
    path = Path(mask)
    extension = SEGMENTATION if path.name.lower().endswith(SEGMENTATION) else extension_of(path)
    return path.with_name(path.name[: len(path.name) - len(extension)] + _EXTENSION)


def check_provenance_path(mask: str | os.PathLike[str]) -> Path:
    """The JSON file of a mask, checked before it is written.

    Raises:
        ValueError: There is a file of another kind at this path, which must not be overwritten.
    """
    path = provenance_path(mask)
    if path.exists() and not _is_ours(path):
        raise ValueError(
            f"{path.name} does not tell where a mask comes from, and would be replaced. Rename or move it, "
            "or give the mask another name."
        )
    return path


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


def _is_ours(path: Path) -> bool:
    if not path.is_file() or path.stat().st_size > _LARGEST:
        return False
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return any(one["Name"] == "SegMed" for one in found["GeneratedBy"])
    except (ValueError, KeyError, TypeError):
        return False
