"""MONAI Label's datastore of a folder, whose list is always whole on disk."""

from __future__ import annotations

import json
import os
import re
from contextlib import nullcontext
from itertools import count
from pathlib import Path
from typing import Any

from filelock import FileLock
from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.datastore import DefaultLabelTag

from segmed.imaging.reading import EXTENSIONS
from segmed.imaging.seg_nrrd import SEGMENTATION
from segmed.imaging.sidecar import sidecar_of
from segmed.server.label_intake import keep_sidecar

_VERSION = re.compile(r"version_\d+")


class FolderDatastore(LocalDatastore):
    """Puts a new list in the place of the old one, and keeps what each annotator has drawn and what it is called.

    MONAI Label 0.8.5 empties the file and writes into it: a training that reads at that moment finds nothing, and a
    full disk loses who labelled what. And it forgets a final label that somebody else replaces, so that nobody can
    tell how far annotators agree: here that is kept as `version_1`, `version_2`, …, one of each annotator. Where a
    label comes as another kind of file than the one before, it leaves both: here there is one. Beside NIfTI lies a
    table of names and colours.

    Arguments are those of `LocalDatastore`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self._auto_reload:
            self._handler.on_moved = self._on_moved

    def _update_datastore_file(self, lock: bool = True) -> None:
        path = Path(self._datastore_config_path)
        part = path.with_suffix(f".{os.getpid()}.part")
        with FileLock(self._lock_file) if lock else nullcontext():
            try:
                content = self._datastore.model_dump(exclude={"base_path"})
                part.write_text(json.dumps(content, indent=2, default=str), encoding="utf-8")
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)
            self._config_ts = path.stat().st_mtime

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any] | None) -> str:
        """As MONAI Label's; a final label of another `client_id` is kept.

        Args:
            image_id: id.
            label_filename: label map.
            label_tag: of the label.
            label_info: what is known of it; `segments` as `noted` makes it.
        """
        entry = self._datastore.objects.get(image_id)
        if entry and label_tag == DefaultLabelTag.FINAL and (old := entry.labels.get(label_tag)):
            owner, file = old.info.get("client_id"), Path(self.get_label_uri(image_id, label_tag))
            if owner and owner != (label_info or {}).get("client_id") and file.is_file():
                kept = {tag: label for tag, label in entry.labels.items() if _VERSION.fullmatch(tag)}
                mine = [tag for tag, label in kept.items() if label.info.get("client_id") == owner]
                free = (tag for n in count(1) if (tag := f"version_{n}") not in kept)
                self._put(image_id, str(file), mine[0] if mine else next(free), dict(old.info))
        return self._put(image_id, label_filename, label_tag, label_info)

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """As MONAI Label's; the table goes too."""
        file = self.get_label_uri(label_id, label_tag)
        super().remove_label(label_id, label_tag)
        if file:
            sidecar_of(file).unlink(missing_ok=True)

    def _put(self, image: str, file: str, tag: str, info: dict[str, Any] | None) -> str:
        """Save a label and remove what was there under another extension."""
        saved = str(super().save_label(image, file, tag, info))
        place = Path(self.get_label_uri(image, tag))
        for extension in (*EXTENSIONS, SEGMENTATION):
            other = place.with_name(image + extension)
            if other != place:
                other.unlink(missing_ok=True)
        keep_sidecar(place, (info or {}).get("segments"))
        return saved

    def _to_id(self, file: str) -> tuple[str, str]:
        """Id and extension; a segmentation of 3D Slicer is called so, or it would be loaded as an image."""
        if file.lower().endswith(SEGMENTATION):
            return file[: -len(SEGMENTATION)], file[-len(SEGMENTATION) :]
        told: tuple[str, str] = super()._to_id(file)
        return told

    def _list_files(self, path: str, patterns: Any) -> dict[str, str]:
        """As MONAI Label's; a segmentation beside images is none of them."""
        found: dict[str, str] = super()._list_files(path, patterns)
        if Path(path) == Path(self._datastore.image_path()):
            return {name: file for name, file in found.items() if not name.lower().endswith(SEGMENTATION)}
        return found

    def _on_moved(self, event: Any) -> None:
        """Read what another process has put there; MONAI Label looks at its time first."""
        if event.dest_path == self._datastore_config_path:
            self._init_from_datastore_file()
