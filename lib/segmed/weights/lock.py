"""The lock file, which records what was fetched, so that later changes are noticed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from segmed.imaging.durable import appear_whole

LOCK = "lock.json"
_SCHEMA = 1


@dataclass(frozen=True)
class LockedFile:
    """A file at the time when it was fetched.

    Attributes:
        sha256: SHA-256 in hexadecimal digits.
        bytes: Size.
        etag: ETag from the server; "" for none.
    """

    sha256: str
    bytes: int
    etag: str = ""


@dataclass(frozen=True)
class Locked:
    """Weights at the time when they were fetched.

    Attributes:
        source: Hugging Face id or URL.
        revision: Commit of the Hugging Face repository; "" for other servers.
        fetched: Time of the download in UTC, ISO 8601.
        files: The files by name.
    """

    source: str
    revision: str
    fetched: str
    files: Mapping[str, LockedFile]


class Lock:
    """The lock file of a folder of weights.

    Args:
        folder: The folder that contains it.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK

    def all(self) -> dict[str, Locked]:
        """All weights that were fetched, by name; empty if there is no lock file.

        Raises:
            ValueError: The file is damaged.
            OSError: It cannot be read.
        """
        try:
            raw = json.loads(self.path.read_text(encoding="utf-8"))
            if raw["schema"] != _SCHEMA:
                raise ValueError(f"schema is {raw['schema']!r}")
            return {name: _locked(entry) for name, entry in raw["weights"].items()}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"The lock file {self.path} is damaged or of another version ({error}). Delete it; the "
                "weights stay, and `segmed weights get` notes their checksums again."
            ) from error

    def get(self, name: str) -> Locked | None:
        """The entry of these weights, if they were fetched."""
        return self.all().get(name)

    def record(self, name: str, locked: Locked) -> None:
        """Record what was fetched, in place of an earlier entry.

        Raises:
            ValueError: The file is damaged.
            OSError: The file cannot be written; it has not changed.
        """
        weights = {**self.all(), name: locked}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = {"schema": _SCHEMA, "weights": {key: asdict(weights[key]) for key in sorted(weights)}}
        with appear_whole(self.path) as part:
            part.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _locked(raw: Mapping[str, object]) -> Locked:
    files = raw["files"]
    if not isinstance(files, dict):
        raise ValueError(f"files is {files!r}")
    return Locked(
        str(raw["source"]),
        str(raw["revision"]),
        str(raw["fetched"]),
        {name: LockedFile(str(f["sha256"]), int(f["bytes"]), str(f["etag"])) for name, f in files.items()},
    )
