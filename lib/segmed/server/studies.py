"""The studies as active learning sees them: images with marks that change when their files do, and who has a label."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.datastore import Datastore

from segmed.active.labels import Effort
from segmed.active.submission import LabelMap, names_of_file
from segmed.data.pairs import natural
from segmed.imaging.reading import extension_of
from segmed.imaging.seg_nrrd import SEGMENTATION
from segmed.server.dicom_studies import DicomStudies
from segmed.server.read_only import can_write, state_in_place_of

FINAL, ORIGINAL = "final", "original"
_SERIES_EVERY = 60.0  # s between two looks at series of DICOM files
_PATIENCE = 3
_MOST = 10**7  # prompts or seconds; what is more is no measurement


@dataclass(frozen=True)
class Snapshot:
    """The studies at one moment.

    Attributes:
        images: mark of the file by id; files in natural order, series as the datastore has them.
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
        """Where images lie side by side as files; None where only the datastore knows, as for series of DICOM files."""
        store = self._store()
        return Path(store._datastore_path) if isinstance(store, LocalDatastore) else None

    def changes(self) -> object:
        """Something that differs from what it was if the datastore may have changed."""
        if self.folder is None:
            return int(time.monotonic() / _SERIES_EVERY)
        places = self.folder, self.folder / "datastore_v2.json"
        return tuple(path.stat().st_mtime_ns if path.exists() else 0 for path in places)

    def look(self, images: Collection[str] = (), labelled: Collection[str] = ()) -> Snapshot | None:
        """What is there now.

        MONAI Label empties its list for a moment whenever it reads the folder anew, and a list of a PACS may be of a
        moment ago. An image or label that was there and whose file still is has not gone.

        Args:
            images: ids that were there.
            labelled: ids that had a label.

        Returns:
            None if the list is just being made; then look again in a moment.
        """
        store, folder = self._store(), self.folder
        marks = _marks(folder) if folder else {}
        try:
            listed, final = list(store.list_images()), frozenset(store.get_labeled_images())
        except RuntimeError:  # changed while it was read
            return None
        lost = set(labelled) & set(listed) - final
        if folder is None:
            if images and not listed:
                return None
            kept = {image for image in lost if store.get_label_by_image_id(image, FINAL)}
            return Snapshot({i: i for i in listed}, final | kept)
        doubt = marks.keys() & (set(images) - set(listed))
        if lost:
            doubt |= _marks(folder / "labels" / FINAL).keys() & lost
        self._doubts = self._doubts + 1 if doubt else 0
        if 0 < self._doubts <= _PATIENCE:
            return None
        return Snapshot({i: marks.get(i, "") for i in sorted(listed, key=natural)}, final)

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
        """The label map of an image; None without one, or if it would have to be fetched from a PACS first."""
        return label_map(self._store(), image, tag, self._structures, fetch=False)

    def submitter(self, image: str) -> str:
        """Who submitted the final label, as the label's info tells; "" for labels copied into the folder."""
        return str(self._info(image).get("client_id") or "")[:100]

    def effort(self, image: str) -> Effort:
        """What the viewer told of the work on the final label; nothing that cannot be is believed."""
        info = self._info(image)
        prompts, seconds = (_number(info.get(key)) for key in ("prompts", "seconds"))
        model = info.get("model") or ""
        if isinstance(model, Mapping):
            model = " ".join(str(model[key]) for key in ("name", "version") if key in model)
        return Effort(None if prompts is None else int(prompts), seconds, str(model)[:100])

    def _info(self, image: str) -> Mapping[str, Any]:
        store = self._store()
        info: Mapping[str, Any] = store.get_label_info(image, FINAL)  # a label has the id of its image
        return info


def label_map(
    store: Datastore, image: str, tag: str, structures: Mapping[str, int], fetch: bool = True
) -> LabelMap | None:
    """The stored label map of an image with its names; None without one. One of a PACS is fetched if that is wanted."""
    if isinstance(store, DicomStudies) and not (fetch or store.has_label(image, tag)):
        return None
    label = store.get_label_by_image_id(image, tag)
    path = store.get_label_uri(label, tag) if label else ""
    if not path:
        return None
    return LabelMap(Path(path), names_of_file(Path(path), store.get_label_info(label, tag), structures))


def state_folder(store: Datastore, chosen: Path | None) -> Path:
    """Where the state is kept: as `--conf active_folder` says, or hidden beside the labels if that can be written."""
    beside = store.labels.root if isinstance(store, DicomStudies) else Path(store._datastore_path)
    if chosen or not beside.is_dir() or can_write(beside):
        return chosen or beside / ".segmed"
    return state_in_place_of(beside)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= _MOST else None


def _marks(folder: Path) -> dict[str, str]:
    """Time and size of the images of a folder by id; nothing if it is not there."""
    marks: dict[str, str] = {}
    if not folder.is_dir():
        return marks
    with os.scandir(folder) as entries:
        for entry in entries:
            segmentation = SEGMENTATION if entry.name.lower().endswith(SEGMENTATION) else ""
            if extension := segmentation or extension_of(entry.name):
                try:
                    facts = entry.stat()
                except FileNotFoundError:  # gone meanwhile
                    continue
                marks[entry.name[: -len(extension)]] = f"{facts.st_mtime_ns}-{facts.st_size}"
    return marks
