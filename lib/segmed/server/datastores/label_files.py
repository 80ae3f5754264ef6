"""Label maps and what is known of them, in the form of MONAI Label's folder datastore."""

from __future__ import annotations

import copy
import itertools
import json
import logging
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from segmed.data.datastore import LIST
from segmed.imaging.durable import appear_whole, flush
from segmed.imaging.formats.seg_nrrd import SEGMENTATION
from segmed.imaging.labels.provenance import keep_records
from segmed.imaging.labels.sidecar import sidecar_of
from segmed.server.datastores.label_check import keep_sidecar
from segmed.server.datastores.label_history import LabelHistory

logger = logging.getLogger(__name__)

_EXTENSIONS = (".nii.gz", SEGMENTATION)


class LabelFiles:
    """`datastore_v2.json` and `labels/<tag>/<image>.nii.gz` of a folder, which is made when something is
    saved.

    A label map is a `.seg.nrrd` where its segments overlap; beside NIfTI lies a table of names and colours.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._list = root / LIST
        self._read: tuple[int, int] = (0, 0)
        self._objects: dict[str, Any] = {}
        self._lock = threading.RLock()
        self.history = LabelHistory(root)

    def tags(self, image: str) -> list[str]:
        """Tags of the label maps that an image has."""
        tags = self.objects().get(image, {}).get("labels", {})
        return [tag for tag in tags if self.place(image, tag).is_file()]

    def labelled(self, tag: str) -> list[str]:
        """Images with a label map of that tag."""
        return [i for i, o in self.objects().items() if tag in o["labels"] and self.place(i, tag).is_file()]

    def place(self, image: str, tag: str) -> Path:
        """Where the label map of an image is, or would be."""
        stored = self.objects().get(image, {}).get("labels", {}).get(tag, {}).get("ext")
        return self._file(image, tag, stored if stored in _EXTENSIONS else _EXTENSIONS[0])

    def info(self, image: str, tag: str) -> dict[str, Any]:
        """What was saved with a label map; nothing without one."""
        label = self.objects().get(image, {}).get("labels", {}).get(tag, {})
        return copy.deepcopy(label.get("info") or {})

    def image_info(self, image: str) -> dict[str, Any]:
        """What was noted of an image."""
        return copy.deepcopy(self.objects().get(image, {}).get("image", {}).get("info") or {})

    def put(self, image: str, tag: str, file: Path, info: dict[str, Any]) -> None:
        """Keep a label map in place of the one before.

        Args:
            image: id.
            tag: of the label.
            file: `.nii.gz` or `.seg.nrrd`.
            info: what is known of it, JSON; `segments` as `noted` makes it.

        Raises:
            OSError: the folder cannot be written.
        """
        extension = next(e for e in reversed(_EXTENSIONS) if file.name.endswith(e))
        place = self._file(image, tag, extension)
        place.parent.mkdir(parents=True, exist_ok=True)
        told = {**info, "ts": int(time.time()), "name": place.name}
        with self._alone():
            self.history.keep(image, tag, self.place(image, tag), self.info(image, tag))
            objects = copy.deepcopy(self.objects())
            objects.setdefault(image, _entry())["labels"][tag] = {"ext": extension, "info": told}
            # the list is on the disk before the label takes its place, so that a full disk changes neither
            with appear_whole(self._list, ".json") as listed, appear_whole(place, extension) as name:
                shutil.copyfile(file, name)
                _write(listed, objects)
                flush(listed)
                keep_sidecar(place, info)
        for other in _EXTENSIONS:
            if other != extension:
                self._file(image, tag, other).unlink(missing_ok=True)

    def remove(self, image: str, tag: str) -> None:
        """Delete a label map; nothing happens without one."""
        place = self.place(image, tag)
        self.history.keep(image, tag, place, self.info(image, tag))
        place.unlink(missing_ok=True)
        sidecar_of(place).unlink(missing_ok=True)
        keep_records({}, place)
        self._change(image, lambda entry: entry["labels"].pop(tag, None))

    def note_image(self, image: str, info: dict[str, Any]) -> None:
        """Add to what is known of an image."""
        self._change(image, lambda entry: entry["image"]["info"].update(info))

    def note_label(self, image: str, tag: str, info: dict[str, Any]) -> None:
        """Add to what is known of a label map. Raises KeyError without one."""
        self._change(image, lambda entry: entry["labels"][tag]["info"].update(info))

    def objects(self) -> dict[str, Any]:
        """All that is noted by image, as it is on disk now; not to be changed.

        Raises:
            OSError: the list is damaged and cannot be put aside.
        """
        with self._lock:
            try:
                facts = self._list.stat()
            except OSError:
                return {}
            if self._read != (facts.st_mtime_ns, facts.st_size):
                try:
                    self._objects = dict(json.loads(self._list.read_text(encoding="utf-8"))["objects"])
                except (ValueError, KeyError, TypeError) as error:
                    self._objects = self._made_anew(error)
                self._read = facts.st_mtime_ns, facts.st_size
            return self._objects

    def _made_anew(self, error: Exception) -> dict[str, Any]:
        """What the files themselves tell, where the list is damaged; it is kept under another name."""
        free = (self._list.with_name(f"{self._list.stem}.damaged-{n}.json") for n in itertools.count(1))
        kept = next(name for name in free if not name.exists())
        self._list.replace(kept)
        logger.error(
            "%s is damaged (%.200s). It is kept as %s and rebuilt from the files.", LIST, error, kept.name
        )
        found: dict[str, Any] = {}
        for folder in (self.root / "labels").iterdir() if (self.root / "labels").is_dir() else ():
            for file in folder.iterdir() if folder.is_dir() else ():
                extension = next((e for e in _EXTENSIONS if file.name.endswith(e)), "")
                if extension and not file.name.startswith("."):
                    entry = found.setdefault(file.name.removesuffix(extension), _entry())
                    entry["labels"][folder.name] = {"ext": extension, "info": {"name": file.name}}
        with appear_whole(self._list, ".json") as name:
            _write(name, found)
        return found

    def _file(self, image: str, tag: str, extension: str) -> Path:
        return self.root / "labels" / tag / f"{image}{extension}"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        with FileLock(self.root / ".lock"), self._lock:
            yield

    def _change(self, image: str, change: Any) -> None:
        with self._alone():
            objects = copy.deepcopy(self.objects())
            change(objects.setdefault(image, _entry()))
            with appear_whole(self._list, ".json") as name:
                _write(name, objects)


def _write(path: Path, objects: Mapping[str, Any]) -> None:
    told = {
        "name": "SegMed",
        "description": "",
        "images_dir": ".",
        "labels_dir": "labels",
        "objects": objects,
    }
    path.write_text(json.dumps(told, indent=2, ensure_ascii=False), encoding="utf-8")


def _entry() -> dict[str, Any]:
    """What is noted of an image at first."""
    return {"image": {"ext": "", "info": {}}, "labels": {}}
