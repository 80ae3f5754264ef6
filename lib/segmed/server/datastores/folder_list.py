"""The list of a folder of images: changed by one server and one thread at a time, and always whole on
disk."""

from __future__ import annotations

import copy
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from filelock import FileLock
from monailabel.datastore.local import ImageLabelModel, LocalDatastore, LocalDatastoreModel

from segmed.data.datastore import LIST
from segmed.data.left_out import fault_of_id
from segmed.imaging.durable import appear_whole, flush
from segmed.server.datastores.read_only import can_write, check_writable, stand_in
from segmed.server.http.errors import BadRequest

logger = logging.getLogger(__name__)

GONE = (
    "The studies folder is not there any more. Bring it back, for instance by mounting its drive, and try "
    "again."
)


class ListedFolder(LocalDatastore):
    """MONAI Label's datastore of a folder with another way to keep its list.

    MONAI Label 0.8.5 empties the file and writes into it: a training that reads at that moment finds nothing,
    and a full disk loses who labelled what. It looks at the files of the folder and writes the list
    afterwards without holding a lock, so that what another server has noted meanwhile is lost; and while it
    looks, its list is empty for a moment.

    Args:
        root: the folder.
        read_only: whether nothing is changed, whatever the file system allows.
        kwargs: of `LocalDatastore`.

    Attributes:
        root: the folder.
        writable: whether labels and images can be saved.
    """

    def __init__(self, root: Path, read_only: bool = False, **kwargs: Any) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self.writable = not read_only and can_write(root)
        if self.writable:
            place = root
            set_aside_if_damaged(root / LIST)
        else:
            place, kwargs = stand_in(root), {**kwargs, "images_dir": str(root)}
        self._held = FileLock(place / ".lock")  # one object, so that a thread that holds it may take it again
        self._mark: tuple[int, int, int] | None = None
        super().__init__(str(place), **kwargs)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """For changes: with the list as other servers of the same studies have left it, and they wait.

        Raises:
            BadRequest: (503) the folder is gone, and nothing is made in its place; (403) it may only be read.
        """
        check_there(self.root)
        check_writable(self.writable)
        with self._held:
            try:
                self._read_list()
            except ValueError as error:
                logger.error(
                    "%s is damaged (%.200s) and is written again.", self._datastore_config_path, error
                )
            yield

    @contextmanager
    def _listing(self, image: str) -> Iterator[Callable[[], None]]:
        """Change an entry of the list: it is on disk when this is over, or the list is as it was.

        Only within `_alone`.

        Args:
            image: id of the entry, which may be a new one.

        Yields:
            To be called once the entry is changed. The new list is on the disk then, beside the old one, so
            that files that take their places afterwards do so only if there was room for the list as well.
        """
        path, before = Path(self._datastore_config_path), copy.deepcopy(self._datastore.objects.get(image))
        try:
            with appear_whole(path) as part:

                def write() -> None:
                    self._write_list(part)
                    flush(part)

                yield write
        except BaseException:
            if before is None:
                self._datastore.objects.pop(image, None)
            else:
                self._datastore.objects[image] = before
            raise
        self._mark = _mark(path)

    def _write_list(self, path: Path) -> None:
        content = self._datastore.model_dump(exclude={"base_path"})
        path.write_text(json.dumps(content, indent=2, default=str), encoding="utf-8")

    def _read_list(self) -> None:
        """Read it if it has changed. Raises ValueError if it is damaged."""
        path = Path(self._datastore_config_path)
        mark = _mark(path)
        if mark is None or mark == self._mark:
            return
        found = LocalDatastoreModel.model_validate_json(path.read_text(encoding="utf-8"))
        found.base_path = self._datastore_path
        self._datastore, self._mark = found, mark

    def _init_from_datastore_file(self, throw_exception: bool = False) -> None:
        if not self.root.is_dir():  # nor is it made again by a lock file
            return
        with self._held:
            try:
                self._read_list()
            except ValueError as error:
                logger.error("%s is damaged (%.200s).", self._datastore_config_path, error)
                if throw_exception:
                    raise

    def _update_datastore_file(self, lock: bool = True) -> None:
        check_there(self.root)
        path = Path(self._datastore_config_path)
        with self._held, appear_whole(path) as part:
            self._write_list(part)
        self._mark = _mark(path)

    def _reconcile_datastore(self) -> None:
        if not self.root.is_dir():  # then its images are not lost
            return
        with self._held:  # from when the list is read until it is written
            super()._reconcile_datastore()

    def _remove_non_existing(self) -> int:
        """As MONAI Label's; what was listed before and cannot be opened by its name goes too.

        Others who look at the list meanwhile see the old one or the new one.
        """
        self._init_from_datastore_file()
        images, gone = Path(self._datastore.image_path()), 0
        kept: dict[str, ImageLabelModel] = {}
        for name, entry in self._datastore.objects.items():
            if fault_of_id(name) or not (images / self._filename(name, entry.image.ext)).exists():
                gone += 1
                continue
            labels = {
                tag: label
                for tag, label in entry.labels.items()
                if (Path(self._datastore.label_path(tag)) / self._filename(name, label.ext)).exists()
            }
            gone += len(entry.labels) - len(labels)
            if len(labels) < len(entry.labels):
                entry.labels = labels
            kept[name] = entry
        if len(kept) < len(self._datastore.objects):
            self._datastore.objects = kept
        return gone


def _mark(path: Path) -> tuple[int, int, int] | None:
    """Changes with each list that is put there, however quickly one follows another; None without a file."""
    try:
        facts = path.stat()
    except FileNotFoundError:
        return None
    return facts.st_mtime_ns, facts.st_ino, facts.st_size


def set_aside_if_damaged(path: Path) -> None:
    """Rename a list that cannot be read, so that it is rebuilt from the files; names stand beside the
    labels.

    A process that was killed, a full disk or an older version may have left it so.
    """
    try:
        LocalDatastoreModel.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except ValueError as error:  # also what is no UTF-8
        free = (path.with_name(f"{path.stem}.damaged-{n}.json") for n in count(1))
        kept = next(name for name in free if not name.exists())
        path.replace(kept)
        logger.error(
            "%s is damaged (%.200s). It is kept as %s and rebuilt from the files.", path, error, kept.name
        )


def check_there(root: Path | os.PathLike[str]) -> None:
    """Raises BadRequest (503) if the studies folder is gone, as when a network drive is not mounted."""
    if not Path(root).is_dir():
        raise BadRequest(
            f"{GONE} Nothing was saved.",
            503,
        )
