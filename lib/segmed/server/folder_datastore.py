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

_VERSION = re.compile(r"version_\d+")


class FolderDatastore(LocalDatastore):
    """Puts a new list in the place of the old one, and keeps what each annotator has drawn.

    MONAI Label 0.8.5 empties the file and writes into it: a training that reads at that moment finds nothing, and a
    full disk loses who labelled what. And it forgets a final label that somebody else replaces, so that nobody can
    tell how far annotators agree: here that is kept as `version_1`, `version_2`, …, one of each annotator.

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
        """As MONAI Label's; a final label of another `client_id` is kept."""
        entry = self._datastore.objects.get(image_id)
        if entry and label_tag == DefaultLabelTag.FINAL and (old := entry.labels.get(label_tag)):
            owner, file = old.info.get("client_id"), Path(self.get_label_uri(image_id, label_tag))
            if owner and owner != (label_info or {}).get("client_id") and file.is_file():
                kept = {tag: label for tag, label in entry.labels.items() if _VERSION.fullmatch(tag)}
                mine = [tag for tag, label in kept.items() if label.info.get("client_id") == owner]
                free = (tag for n in count(1) if (tag := f"version_{n}") not in kept)
                super().save_label(image_id, str(file), mine[0] if mine else next(free), dict(old.info))
        return str(super().save_label(image_id, label_filename, label_tag, label_info))

    def _on_moved(self, event: Any) -> None:
        """Read what another process has put there; MONAI Label looks at its time first."""
        if event.dest_path == self._datastore_config_path:
            self._init_from_datastore_file()
