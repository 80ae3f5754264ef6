"""MONAI Label's datastore of a folder, whose list is always whole on disk."""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock
from monailabel.datastore.local import LocalDatastore


class FolderDatastore(LocalDatastore):
    """Puts a new list in the place of the old one.

    MONAI Label 0.8.5 empties the file and writes into it: a training that reads at that moment finds nothing, and a
    full disk loses who labelled what. Arguments are those of `LocalDatastore`.
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

    def _on_moved(self, event: Any) -> None:
        """Read what another process has put there; MONAI Label looks at its time first."""
        if event.dest_path == self._datastore_config_path:
            self._init_from_datastore_file()
