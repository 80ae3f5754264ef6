"""MONAI Label's datastore of a folder, with labels that nobody loses."""

from __future__ import annotations

import os
import re
import shutil
import time
from itertools import count
from pathlib import Path
from typing import Any

from monailabel.datastore.local import DataModel, ImageLabelModel
from monailabel.interfaces.datastore import DefaultLabelTag
from monailabel.interfaces.exception import ImageNotFoundException, LabelNotFoundException

from segmed.data.left_out import LeftOut, image_names, left_out_files, names_in
from segmed.imaging.durable import appear_whole, sweep
from segmed.imaging.formats.seg_nrrd import SEGMENTATION
from segmed.imaging.labels.provenance import keep_records
from segmed.imaging.labels.sidecar import sidecar_of
from segmed.imaging.reading import EXTENSIONS, extension_of
from segmed.server.datastores.folder_list import GONE, ListedFolder
from segmed.server.datastores.label_check import keep_sidecar
from segmed.server.datastores.label_history import LabelHistory
from segmed.server.datastores.read_only import TOLD
from segmed.server.datastores.state import state_json
from segmed.server.http.errors import BadRequest

_VERSION = re.compile(r"version_\d+")
_LOOK_EVERY = 30.0  # s between two looks at folders below


class FolderDatastore(ListedFolder):
    """Keeps what each annotator has drawn and what it is called.

    MONAI Label 0.8.5 forgets a final label that somebody else replaces, so that nobody can tell how far
    annotators agree: here that is kept as `version_1`, `version_2`, …, one of each annotator. Where a label
    comes as another kind of file than the one before, it leaves both: here there is one. Beside NIfTI lies a
    table of names and colours. A folder that may only be read is listed and read, and saving there is
    refused.

    Arguments are those of `ListedFolder`.
    """

    def __init__(self, root: str | os.PathLike[str], **kwargs: Any) -> None:
        root = Path(root)
        self._left_out: tuple[object, float, list[LeftOut]] = (None, 0.0, [])
        self.history = LabelHistory(root)
        super().__init__(root, **kwargs)
        self._looks, self._seen = not self.writable, 0  # no event tells of other people's changes
        for folder in (
            (root, *(path for path in (root / "labels").iterdir() if path.is_dir())) if self.writable else ()
        ):
            sweep(folder)
        if self._auto_reload:
            self._handler.on_moved = self._on_moved

    @classmethod
    def of_folder(
        cls, studies: str | os.PathLike[str], auto_reload: bool, read_only: bool = False
    ) -> FolderDatastore:
        """The datastore of all images that can be read.

        Args:
            studies: the folder.
            auto_reload: whether to notice what others put there.
            read_only: whether nothing is changed.
        """
        patterns = [f"*{case}" for e in EXTENSIONS if e != ".dcm" for case in (e, e.upper())]
        return cls(Path(studies), extensions=patterns, auto_reload=auto_reload, read_only=read_only)

    def list_images(self) -> list[str]:
        """Ids; those that came to a folder that may only be read, or that was gone, are looked for here."""
        if not self.root.is_dir():
            self._looks, self._seen = True, 0
        elif self._looks and (now := self.root.stat().st_mtime_ns) != self._seen:
            self._seen = now
            self.refresh()
        return list(super().list_images())

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any] | None
    ) -> str:
        """As MONAI Label's; a final label of another `client_id` is kept.

        Args:
            image_id: id.
            label_filename: label map.
            label_tag: of the label.
            label_info: what is known of it; `segments` as `noted` makes it.
        """
        with self._alone():
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
        with self._alone():
            file = self.get_label_uri(label_id, label_tag)
            if file:
                self.history.keep(label_id, label_tag, Path(file), self.get_label_info(label_id, label_tag))
            super().remove_label(label_id, label_tag)
            if file:
                sidecar_of(file).unlink(missing_ok=True)
                keep_records({}, file)

    def _put(self, image: str, file: str, tag: str, info: dict[str, Any] | None) -> str:
        """Save a label, keep the one before in the history, and remove it if it has another extension."""
        extension = self._to_id(Path(file).name)[1]
        place = Path(self._datastore.label_path(tag)) / self._filename(image, extension)
        told = {} if info is None else info
        entry = self._datastore.objects.get(image)
        if entry is None:
            raise ImageNotFoundException(f"Image {image} not found")
        place.parent.mkdir(parents=True, exist_ok=True)
        old = entry.labels.get(tag)
        if old and not _VERSION.fullmatch(tag):
            self.history.keep(image, tag, place.with_name(self._filename(image, old.ext)), old.info)
        with self._listing(image) as write_list, appear_whole(place, extension) as part:
            shutil.copyfile(file, part)
            told |= {"ts": int(time.time()), "name": place.name}
            entry.labels[tag] = DataModel(info=told, ext=extension)
            write_list()
            keep_sidecar(place, told)
        for other in (place.with_name(image + e) for e in (*EXTENSIONS, SEGMENTATION)):
            if other != place:
                other.unlink(missing_ok=True)
        return image

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any] | None) -> str:
        """As MONAI Label's, but nothing takes the place of another image, or gets the labels of one.

        Args:
            image_id: under which name; "" for that of the file.
            image_filename: the file.
            image_info: what is known of it.

        Raises:
            BadRequest: (409) there is an image of that name, or labels of one.
        """
        name = image_id or self._to_id(Path(image_filename).name)[0]
        extension = self._to_id(Path(image_filename).name)[1]
        with self._alone():  # from when the name is free until it is taken
            if taken := self._taken(name):
                raise BadRequest(
                    f"{taken} Give the image another name, or ask for a new one by ?new_name=true.", 409
                )
            place = Path(self._datastore.image_path()).resolve() / self._filename(name, extension)
            info = {**(image_info or {}), "ts": int(time.time()), "name": place.name}
            with self._listing(name) as write_list, appear_whole(place, extension) as part:
                shutil.copyfile(image_filename, part)
                self._datastore.objects[name] = ImageLabelModel(image=DataModel(info=info, ext=extension))
                write_list()
        return name

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        """As MONAI Label's, after what other servers have noted."""
        with self._alone(), self._listing(image_id) as write_list:
            entry = self._datastore.objects.get(image_id)
            if entry is None:
                raise ImageNotFoundException(f"Image {image_id} not found")
            entry.image.info.update(info)
            write_list()

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        """As MONAI Label's, after what other servers have noted."""
        with self._alone(), self._listing(label_id) as write_list:
            label = self._datastore.label(label_id, label_tag)
            if label is None:
                raise LabelNotFoundException(f"Label: {label_id} Tag: {label_tag} not found")
            label.info.update(info)
            write_list()

    def free_name(self, name: str) -> str:
        """The name itself, or with the first number behind it that makes it free."""
        return next(one for n in count(1) if not self._taken(one := name if n == 1 else f"{name}_{n}"))

    def _taken(self, name: str) -> str:
        """A sentence on what has the name already; "" if it is free."""
        root = Path(self._datastore.image_path())
        if any(file[: -len(extension_of(file))] == name for file in names_in(root) if extension_of(file)):
            return f"There is an image {name!r} in the studies already, and it is not replaced."
        labels = Path(self._datastore.label_path(None))
        for folder in (path for path in labels.iterdir() if path.is_dir()):
            if any(self._to_id(file)[0] == name for file in names_in(folder) if extension_of(file)):
                return (
                    f"The studies still hold labels of an earlier image {name!r} (labels/{folder.name}), "
                    "which would become those of the new one."
                )
        return ""

    def state(self) -> dict[str, Any]:
        """`kind`, `state`, `message`, and `left_out` where something is."""
        if not self.root.is_dir():
            return {"kind": "folder", "state": "down", "message": GONE}
        return state_json("folder", self.left_out(), "" if self.writable else TOLD)

    def left_out(self) -> list[LeftOut]:
        """Files of the folder that are not offered."""
        root = Path(self._datastore.image_path())
        if not root.is_dir():
            return []
        listed = {
            self._filename(name, entry.image.ext) for name, entry in list(self._datastore.objects.items())
        }
        key = root.stat().st_mtime_ns, frozenset(listed)
        if key != self._left_out[0] or time.monotonic() - self._left_out[1] >= _LOOK_EVERY:
            self._left_out = key, time.monotonic(), left_out_files(root, listed)
        return self._left_out[2]

    def status(self) -> dict[str, Any]:
        """As MONAI Label's, with what is left out."""
        told = self.state()
        return dict(super().status()) | {key: told[key] for key in ("message", "left_out") if told.get(key)}

    def _to_id(self, file: str) -> tuple[str, str]:
        """Id and extension as the file has it; MONAI Label takes lower case only, and every place of it in
        the name.

        A segmentation of 3D Slicer keeps both parts of its extension, or it would be loaded as an image.
        """
        extension = SEGMENTATION if file.lower().endswith(SEGMENTATION) else extension_of(file)
        if not extension:
            told: tuple[str, str] = super()._to_id(file)
            return told
        return file[: -len(extension)], file[-len(extension) :]

    def _list_files(self, path: str, patterns: Any) -> dict[str, str]:
        """As MONAI Label's; of the images only those that can be opened by their names, one of each name."""
        if Path(path) != Path(self._datastore.image_path()):
            found: dict[str, str] = super()._list_files(path, patterns)
            return {key: name for key, name in found.items() if not Path(name).name.startswith(".")}
        wanted = {pattern.lstrip("*").lower() for pattern in patterns}
        return {name: name for name in image_names(Path(path)).values() if extension_of(name) in wanted}

    def _on_moved(self, event: Any) -> None:
        """Read what another process has put there; MONAI Label looks at its time first."""
        if event.dest_path == self._datastore_config_path:
            self._init_from_datastore_file()
