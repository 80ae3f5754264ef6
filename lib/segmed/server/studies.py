"""The studies as active learning sees them: images with marks that change when their files do, and who has a label."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.datastore import Datastore

from segmed.active.submission import LabelMap, names_of
from segmed.data.pairs import natural
from segmed.imaging.reading import extension_of

FINAL, ORIGINAL = "final", "original"
_REMOTE_EVERY = 60.0  # s between two looks at a PACS
_PATIENCE = 3


@dataclass(frozen=True)
class Snapshot:
    """The studies at one moment.

    Attributes:
        images: mark of the file by id, in natural order.
        labelled: ids with a final label.
    """

    images: Mapping[str, str]
    labelled: frozenset[str]


class Studies:
    """A view of MONAI Label's datastore.

    Args:
        store: gives it.
        structures: values by name where a label map does not tell.
    """

    def __init__(self, store: Callable[[], Datastore], structures: Mapping[str, int]) -> None:
        self._store = store
        self._structures = structures
        self._doubts = 0

    @property
    def folder(self) -> Path | None:
        """Where the images lie; None for a PACS."""
        store = self._store()
        return Path(store._datastore_path) if isinstance(store, LocalDatastore) else None

    def changes(self) -> object:
        """Something that differs from what it was if the datastore may have changed."""
        if self.folder is None:
            return int(time.monotonic() / _REMOTE_EVERY)
        return tuple(path.stat().st_mtime_ns for path in (self.folder, self.folder / "datastore_v2.json"))

    def look(self, images: Collection[str] = (), labelled: Collection[str] = ()) -> Snapshot | None:
        """What is there now.

        MONAI Label empties its list for a moment whenever it reads the folder anew. An image or label that was there
        and whose file still is has not gone.

        Args:
            images: ids that were there.
            labelled: ids that had a label.

        Returns:
            None if the list is just being made; then look again in a moment.
        """
        store, folder = self._store(), self.folder
        if folder is None:
            listed = sorted(store.list_images())
            return Snapshot({i: i for i in listed}, frozenset(store.get_labeled_images()) | frozenset(labelled))
        marks = _marks(folder)
        try:
            listed, final = sorted(store.list_images(), key=natural), frozenset(store.get_labeled_images())
        except RuntimeError:  # changed while it was read
            return None
        doubt = marks.keys() & (set(images) - set(listed))
        if lost := set(labelled) & set(listed) - final:
            doubt |= _marks(folder / "labels" / FINAL).keys() & lost
        self._doubts = self._doubts + 1 if doubt else 0
        if 0 < self._doubts <= _PATIENCE:
            return None
        return Snapshot({i: marks.get(i, "") for i in listed}, final)

    def file(self, image: str) -> Path:
        """The image's file or folder; one of a PACS is fetched.

        Raises:
            FileNotFoundError: it is gone.
        """
        path = self._store().get_image_uri(image)
        if not path:
            raise FileNotFoundError(f"There is no image {image!r} in the studies any more.")
        return Path(path)

    def label_map(self, image: str, tag: str = FINAL) -> LabelMap | None:
        """The stored label map of an image; None without one."""
        return label_map(self._store(), image, tag, self._structures)

    def submitter(self, image: str) -> str:
        """Who submitted the final label, as the label's info tells; "" for labels copied into the folder."""
        store = self._store()
        label = store.get_label_by_image_id(image, FINAL)
        return str(store.get_label_info(label, FINAL).get("client_id", ""))[:128] if label else ""

    def arrived(self, image: str) -> float:
        """When the datastore first saw an image, s since 1970; 0 where it does not tell."""
        value = self._store().get_image_info(image).get("ts", 0)
        return float(value) if isinstance(value, int | float) else 0.0


def label_map(store: Datastore, image: str, tag: str, structures: Mapping[str, int]) -> LabelMap | None:
    """The stored label map of an image with its names; None without one."""
    label = store.get_label_by_image_id(image, tag)
    path = store.get_label_uri(label, tag) if label else ""
    return LabelMap(Path(path), names_of(store.get_label_info(label, tag), structures)) if path else None


def _marks(folder: Path) -> dict[str, str]:
    """Time and size of the images of a folder by id."""
    marks: dict[str, str] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if extension := extension_of(entry.name):
                facts = entry.stat()
                marks[entry.name[: -len(extension)]] = f"{facts.st_mtime_ns}-{facts.st_size}"
    return marks
