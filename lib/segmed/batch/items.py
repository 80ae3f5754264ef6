"""The items of a run, and their division into shards."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from segmed.data.datastore import LIST
from segmed.data.left_out import OURS
from segmed.imaging.formats.seg_nrrd import SEGMENTATION
from segmed.imaging.reading import EXTENSIONS, extension_of

_COMPRESSED = (".nii.gz", ".png", ".jpg", ".jpeg", ".nrrd", ".mha", ".tif", ".tiff", ".webp")
_GROWS = 6  # ratio of decoded to compressed size, and 2 for the 8-bit copy of an uncompressed image
_SAFE = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST = 120  # letters of a part of a name


@dataclass(frozen=True)
class Item:
    """An image to be segmented.

    Attributes:
        key: What identifies it: path relative to the folder or list, or SeriesInstanceUID.
        name: Name of its outputs without extension; may contain folders.
        source: Where it is, JSON values: `file`, `folder`, `files` or `series`.
        size: Estimated memory that it takes, in bytes.
    """

    key: str
    name: str
    source: Mapping[str, Any]
    size: int


@dataclass(frozen=True)
class Listing:
    """The items of a source.

    Attributes:
        items: Items, sorted by their keys.
        notes: What was left out, for the user.
    """

    items: tuple[Item, ...]
    notes: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class Shard:
    """One of several parts of an archive. An item belongs to the part that the hash of its key names.

    It therefore does not matter if images come or go between the starts of the parts.

    Attributes:
        index: Number of the part, from 0.
        count: Number of parts.
    """

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read `i/n`, with i from 0 to n - 1.

        Raises:
            ValueError: The text is of another form.
        """
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
        if not found or not 0 <= int(found[1]) < int(found[2]):
            raise ValueError(
                f"--shard {text!r} is not understood. Give i/n with i from 0 to n - 1, such as 0/8 or "
                '"$SLURM_ARRAY_TASK_ID/8" for an array of 0-7.'
            )
        return cls(int(found[1]), int(found[2]))

    def holds(self, key: str) -> bool:
        """Whether the item of this key belongs to the part."""
        digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.index

    @property
    def file(self) -> str:
        """Name of the manifest of this part."""
        return "manifest.sqlite3" if self.count == 1 else f"manifest-{self.index}-of-{self.count}.sqlite3"

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def list_files(root: Path, skip: Path | None = None) -> Listing:
    """Image files at any depth below a folder, sorted by path.

    Hidden files and segmentations are left out, and in the studies folder of a server its label maps.

    Args:
        root: The folder.
        skip: Folder that is left out, such as that of the results.
    """
    found = []
    labels = root / OURS if (root / LIST).is_file() else None
    left_out = [folder for folder in (skip, labels) if folder]
    for path in sorted(root.rglob("*")):
        extension = extension_of(path.name)
        relative = path.relative_to(root)
        if not extension or path.name.lower().endswith(SEGMENTATION) or not path.is_file():
            continue
        if any(part.startswith(".") for part in relative.parts) or any(map(path.is_relative_to, left_out)):
            continue
        found.append(file_item(path, relative.as_posix()))
    return Listing(named(found))


def read_list(file: Path) -> Listing:
    """The images of a list: one path a line, relative to the list or absolute; `#` begins a comment.

    Paths that are there twice count once. Those that do not exist become items, which fail: a long run does
    not end because of them.

    Raises:
        ValueError: The list is empty, or not text.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file.name} is not a text file in UTF-8. Give one path a line.") from error
    paths = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not paths:
        raise ValueError(f"{file.name} names no image. Give one path a line.")
    found: dict[Path, Item] = {}
    for text in paths:
        path = (file.parent / text).absolute()
        found.setdefault(path, file_item(path, text))
    repeated = len(paths) - len(found)
    notes = (f"{repeated} of the {len(paths)} lines repeat an image and count once.",) if repeated else ()
    return Listing(named(sorted(found.values(), key=lambda item: item.key)), notes)


def file_item(path: Path, key: str) -> Item:
    """An item for a file, or for a folder with one DICOM series."""
    kind = "folder" if path.is_dir() else "file"
    try:
        size = path.stat().st_size if kind == "file" else sum(p.stat().st_size for p in path.iterdir())
    except OSError:
        size = 0
    grows = _GROWS if extension_of(path.name) in _COMPRESSED else 2
    return Item(key, safe_name(key), {kind: str(path)}, size * grows)


def safe_name(key: str) -> str:
    """A name for outputs from a key: its path without extension and without odd characters."""
    path = PurePosixPath(key)
    stem = path.name
    if extension := extension_of(stem):
        stem = stem[: -len(extension)]
    parts = [part for part in (*path.parts[:-1], stem) if part not in ("/", "..", ".")]
    return "/".join(_SAFE.sub("_", part)[:_LONGEST].lstrip(".") or "_" for part in parts) or "_"


def named(items: Sequence[Item]) -> tuple[Item, ...]:
    """Items with different names: where two would have the same one, both get a hash of their keys.

    Names must not differ by case alone, because some file systems do not tell these apart.
    """
    taken = Counter(item.name.lower() for item in items)
    return tuple(_hashed(item) if taken[item.name.lower()] > 1 else item for item in items)


def renamed(items: Sequence[Item], taken: Collection[str]) -> list[Item]:
    """Items whose names, in lower case, are not taken."""
    return [_hashed(item) if item.name.lower() in taken else item for item in items]


def _hashed(item: Item) -> Item:
    digest = hashlib.sha256(item.key.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return replace(item, name=f"{item.name}-{digest}")


def check_known(path: Path) -> None:
    """Refuse a file that is neither an image nor a list. Raises ValueError."""
    if path.suffix.lower() not in (".txt", ".lst", ".csv") and not extension_of(path.name):
        raise ValueError(
            f"{path.name} is neither an image nor a list. Give a folder, a DICOMweb address, a list "
            f"in a .txt file, or an image: {', '.join(EXTENSIONS)}."
        )
