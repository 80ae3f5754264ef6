"""Former versions of saved labels: kept when a label is replaced or removed, and brought back on request."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from segmed.imaging.durable import appear_whole
from segmed.imaging.formats.seg_nrrd import SEGMENTATION
from segmed.server.http.errors import BadRequest

KEPT = 10  # versions of a label
_FORMAT = "%Y%m%dT%H%M%S-%f"
_VERSION = re.compile(r"\d{8}T\d{6}-\d{6}")
_EXTENSIONS = (SEGMENTATION, ".nii.gz")


@dataclass(frozen=True)
class FormerLabel:
    """A label as it was.

    Attributes:
        version: its name, which is when it was replaced, in UTC: `20261129T223516-123456`.
        file: the label map.
        info: what was noted of it.
    """

    version: str
    file: Path
    info: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """What a client learns of it."""
        when = datetime.strptime(self.version, _FORMAT).replace(tzinfo=UTC)
        saved = self.info.get("ts")
        return {
            "version": self.version,
            "replaced": when.isoformat(timespec="seconds"),
            "saved": datetime.fromtimestamp(saved, UTC).isoformat() if isinstance(saved, int) else None,
            "by": str(self.info.get("client_id") or ""),
            "labels": [
                str(s.get("name", "")) for s in self.info.get("segments") or () if isinstance(s, dict)
            ],
            "bytes": self.file.stat().st_size,
        }


class LabelHistory:
    """The hidden folder `.segmed/history/<tag>/<image>` of the studies.

    Args:
        root: folder of the studies, or the one that holds their labels.
        kept: the newest so many versions of each label stay.
    """

    def __init__(self, root: Path, kept: int = KEPT) -> None:
        self.folder = root / ".segmed" / "history"
        self.kept = kept

    def keep(self, image: str, tag: str, file: Path, info: Mapping[str, Any]) -> None:
        """Keep a label map that is about to go; nothing happens if there is none.

        Args:
            image: id.
            tag: of the label.
            file: label map.
            info: what is known of it, JSON.

        Raises:
            OSError: it cannot be kept; nothing should be replaced then.
        """
        if not file.is_file():
            return
        home = self.folder / tag / image
        home.mkdir(parents=True, exist_ok=True)
        version = self._next(image, tag)
        name = version + "".join(
            file.suffixes[-2:] if file.name.endswith(_EXTENSIONS) else file.suffixes[-1:]
        )
        with appear_whole(home / f"{version}.json") as part:
            part.write_text(json.dumps(dict(info), default=str), encoding="utf-8")
        with appear_whole(home / name) as part:
            try:
                os.link(file, part)  # the old bytes; a new file takes the place of its name, not theirs
            except OSError:
                shutil.copyfile(file, part)
        for old in self.versions(image, tag)[self.kept :]:
            for path in home.glob(f"{old.version}.*"):
                with contextlib.suppress(OSError):
                    path.unlink()

    def _next(self, image: str, tag: str) -> str:
        """The name of a new version: the time, but after all others even if the clock was set back."""
        now = datetime.now(UTC).replace(tzinfo=None)
        if before := self.versions(image, tag):
            now = max(now, datetime.strptime(before[0].version, _FORMAT) + timedelta(microseconds=1))
        return now.strftime(_FORMAT)

    def versions(self, image: str, tag: str) -> list[FormerLabel]:
        """What is kept of a label, the newest first."""
        home = self.folder / tag / image
        found = []
        for path in home.iterdir() if home.is_dir() else ():
            version, rest = path.name[:22], path.name[22:]
            if _VERSION.fullmatch(version) and rest.startswith(".") and rest != ".json":
                found.append(FormerLabel(version, path, _noted(home / f"{version}.json")))
        return sorted(found, key=lambda one: one.version, reverse=True)

    def get(self, image: str, tag: str, version: str) -> FormerLabel:
        """One of them.

        Raises:
            BadRequest: (404) there is none of that name.
        """
        for one in self.versions(image, tag):
            if one.version == version:
                return one
        raise BadRequest(f"There is no former version {version[:40]!r} of the label of {image}.", 404)


def history_of(store: Any) -> LabelHistory:
    """The history of a datastore: that of a folder of files, or of what is kept beside DICOM."""
    found: LabelHistory = store.history if hasattr(store, "history") else store.labels.history
    return found


def bring_back(store: Any, image: str, tag: str, version: str) -> str:
    """Save a former label again.

    Args:
        store: datastore.
        image: id.
        tag: of the label.
        version: out of the history.

    Returns:
        The id of the label.

    Raises:
        BadRequest: (404) there is no such version.
        ValueError: it does not lie on the image any more.
        OSError: it cannot be written.
    """
    former = history_of(store).get(image, tag, version)
    with tempfile.TemporaryDirectory(prefix="label-") as folder:
        # a copy, as the history may drop this version while it is saved
        file = Path(folder) / f"label{former.file.name[len(version) :]}"
        shutil.copyfile(former.file, file)
        return str(store.save_label(image, str(file), tag, {**former.info, "restored": version}))


def _noted(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
