"""The files of the studies by image id, from the list of the datastore."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segmed.active.review.submission import LabelMap, names_of_file
from segmed.data.datastore import LIST
from segmed.data.pairs import read_json

_TRIES, _PAUSE = 5, 0.2  # s; MONAI Label writes its list in place, so that half of it may be read


@dataclass(frozen=True)
class StoredLabel:
    """A label map of an image.

    Attributes:
        label_map: File of the label map and names of its values.
        user: User who submitted it; "" where the list does not state it.
    """

    label_map: LabelMap
    user: str


@dataclass(frozen=True)
class StudyFiles:
    """The files of the studies.

    Attributes:
        labels: Label maps whose file exists, by image and tag.
        locate: Function that returns the file or folder of an image, and raises an OSError if it is missing.
    """

    labels: Mapping[str, Mapping[str, StoredLabel]] = field(default_factory=dict)
    locate: Callable[[str], Path] = Path

    @classmethod
    def read(
        cls,
        root: Path,
        structures: Mapping[str, int] | None = None,
        locate: Callable[[str], Path] | None = None,
    ) -> StudyFiles:
        """The files of a folder; empty if no server was ever started on it.

        Args:
            root: Folder of the studies, which holds the list.
            structures: Values by name for label maps that state no names.
            locate: Function that returns the files of images outside of the folder.

        Raises:
            FileNotFoundError: There is no such folder.
            ValueError: The list cannot be read.
        """
        if not root.is_dir():
            raise FileNotFoundError(
                f"There is no folder {root}. Give the folder that the server has as --studies."
            )
        if not (root / LIST).is_file():
            return cls()
        facts = _read(root / LIST)
        try:
            folder = root / facts.get("images_dir", "")
            images = {
                name: folder / f"{name}{entry['image']['ext']}" for name, entry in facts["objects"].items()
            }
            labels = {name: _labels(root, facts, name, structures or {}) for name in images}
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{root / LIST} is not the list of a datastore ({type(error).__name__}: {error}). Start the "
                "server once on this folder, which rewrites it."
            ) from error

        def place(image: str) -> Path:
            if image not in images:
                raise FileNotFoundError(f"There is no image {image!r} in the studies any more.")
            return images[image]

        return cls(labels, locate or place)


def _read(path: Path) -> dict[str, Any]:
    for _ in range(_TRIES - 1):
        try:
            return read_json(path)
        except ValueError:
            time.sleep(_PAUSE)
    return read_json(path)


def _labels(
    root: Path, facts: Mapping[str, Any], name: str, structures: Mapping[str, int]
) -> dict[str, StoredLabel]:
    found = {}
    for tag, label in facts["objects"][name]["labels"].items():
        info = label.get("info") or {}
        file = root / facts.get("labels_dir", "labels") / tag / f"{name}{label['ext']}"
        if file.is_file():
            user = str(info.get("client_id") or "")[:100]
            found[tag] = StoredLabel(LabelMap(file, names_of_file(file, info, structures)), user)
    return found
