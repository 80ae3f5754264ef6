"""The studies as active learning sees them: images with fingerprints of their files, and labels."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.datastore import Datastore

from segmed.active.review.submission import LabelMap, names_of_file
from segmed.active.store.labels import Effort
from segmed.data.pairs import natural
from segmed.imaging.formats.seg_nrrd import SEGMENTATION
from segmed.imaging.reading import extension_of
from segmed.server.datastores.dicom_studies import DicomStudies
from segmed.server.datastores.read_only import can_write, state_in_place_of

FINAL, ORIGINAL = "final", "original"
_SERIES_EVERY = 60.0  # s between two looks at series of DICOM files
_PATIENCE = 3
_MOST = 10**7  # prompts or seconds; what is more is no measurement


@dataclass(frozen=True)
class Snapshot:
    """The studies at one moment.

    Attributes:
        images: Fingerprint of the file by image id; files in natural order, series in that of the datastore.
        labelled: Ids of the images with a final label.
    """

    images: Mapping[str, str]
    labelled: frozenset[str]


class Studies:
    """A view of MONAI Label's datastore.

    Args:
        store: Function that returns the datastore.
        structures: Values by name for label maps that state no names.
    """

    def __init__(self, store: Callable[[], Datastore], structures: Mapping[str, int]) -> None:
        self._store = store
        self._structures = structures
        self._doubts = 0

    @property
    def folder(self) -> Path | None:
        """Folder with one file per image; None where only the datastore knows the files."""
        store = self._store()
        return Path(store._datastore_path) if isinstance(store, LocalDatastore) else None

    def changes(self) -> object:
        """A value that changes whenever the datastore may have changed."""
        if self.folder is None:
            return int(time.monotonic() / _SERIES_EVERY)
        places = self.folder, self.folder / "datastore_v2.json"
        return tuple(path.stat().st_mtime_ns if path.exists() else 0 for path in places)

    def look(self, images: Collection[str] = (), labelled: Collection[str] = ()) -> Snapshot | None:
        """The present contents of the studies.

        MONAI Label empties its list for a moment whenever it reads the folder again, and the list of a PACS
        may be outdated. So an image or label that was listed before counts as present while its file exists.

        Args:
            images: Ids of the images that were listed before.
            labelled: Ids of the images that had a label before.

        Returns:
            The contents; None if the list is being rewritten, in which case the caller should try again.
        """
        store, folder = self._store(), self.folder
        fingerprints = _fingerprints(folder) if folder else {}
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
        doubt = fingerprints.keys() & (set(images) - set(listed))
        if lost:
            doubt |= _fingerprints(folder / "labels" / FINAL).keys() & lost
        self._doubts = self._doubts + 1 if doubt else 0
        if 0 < self._doubts <= _PATIENCE:
            return None
        return Snapshot({i: fingerprints.get(i, "") for i in sorted(listed, key=natural)}, final)

    def file(self, image: str) -> Path:
        """The image's file or folder, fetched from a PACS if necessary.

        Raises:
            FileNotFoundError: The image is missing.
        """
        path = self._store().get_image_uri(image)
        if not path:
            raise FileNotFoundError(f"There is no image {image!r} in the studies any more.")
        return Path(path)

    def label_map(self, image: str, tag: str = FINAL) -> LabelMap | None:
        """The label map of an image; None without one, or if it were to be fetched from a PACS first."""
        return label_map(self._store(), image, tag, self._structures, fetch=False)

    def submitter(self, image: str) -> str:
        """User who submitted the final label, from the label's info; "" for labels copied into the folder."""
        return str(self._info(image).get("client_id") or "")[:100]

    def effort(self, image: str) -> Effort:
        """The work on the final label as reported by the viewer; implausible values are ignored."""
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
    """The stored label map of an image with its names, fetched from a PACS if requested; None without one."""
    if isinstance(store, DicomStudies) and not (fetch or store.has_label(image, tag)):
        return None
    label = store.get_label_by_image_id(image, tag)
    path = store.get_label_uri(label, tag) if label else ""
    if not path:
        return None
    return LabelMap(Path(path), names_of_file(Path(path), store.get_label_info(label, tag), structures))


def state_folder(store: Datastore, chosen: Path | None) -> Path:
    """Folder of the database: that of `--conf active_folder`, or a hidden one beside the labels if it is
    writable."""
    beside = store.labels.root if isinstance(store, DicomStudies) else Path(store._datastore_path)
    if chosen or not beside.is_dir() or can_write(beside):
        return chosen or beside / ".segmed"
    return state_in_place_of(beside)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= _MOST else None


def _fingerprints(folder: Path) -> dict[str, str]:
    """Time and size of the images of a folder by id; empty if there is no such folder."""
    fingerprints: dict[str, str] = {}
    if not folder.is_dir():
        return fingerprints
    with os.scandir(folder) as entries:
        for entry in entries:
            segmentation = SEGMENTATION if entry.name.lower().endswith(SEGMENTATION) else ""
            if extension := segmentation or extension_of(entry.name):
                try:
                    facts = entry.stat()
                except FileNotFoundError:  # gone meanwhile
                    continue
                fingerprints[entry.name[: -len(extension)]] = f"{facts.st_mtime_ns}-{facts.st_size}"
    return fingerprints


def ask_again(store: Datastore) -> None:
    """Have a PACS asked at once, even if it did not answer a moment ago: a user waits for what comes next."""
    if isinstance(store, DicomStudies):
        store.ask_again()
