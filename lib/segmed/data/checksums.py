"""Exact identification of a dataset: checksums of its files, and one fingerprint of all of them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from segmed.data.slices import SliceDataset


def file_checksum(path: Path, algorithm: str = "sha256") -> str:
    """Hexadecimal digest of a file, read in pieces.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The algorithm is unknown.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm.lower()).hexdigest()


def common_folder(dataset: SliceDataset) -> Path:
    """The deepest folder that holds all files of the whole dataset."""
    return Path(os.path.commonpath([path.parent for volume in dataset.volumes for path in volume.files]))


def checksums(dataset: SliceDataset) -> dict[str, str]:
    """SHA-256 of the files whose slices are in the dataset; reads them all, every time.

    Args:
        dataset: Dataset, or a part of one.

    Returns:
        Checksums by path, relative to `common_folder`.

    Raises:
        FileNotFoundError: A file is missing.
    """
    root = common_folder(dataset)
    used = {path for n in {n for n, _ in dataset.slices} for path in dataset.volumes[n].files}
    return {path.relative_to(root).as_posix(): file_checksum(path) for path in sorted(used)}


def fingerprint(sums: Mapping[str, str]) -> str:
    """One SHA-256 of checksums; it is the same wherever the dataset lies."""
    return hashlib.sha256(json.dumps(sorted(sums.items())).encode()).hexdigest()
