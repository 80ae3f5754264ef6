"""The lock file: what was fetched, so that it can be verified later and a change is noticed."""

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
    """One file as it was when it was fetched.

    Attributes:
        sha256: hexadecimal digits.
        bytes: size.
        etag: that the server gave it, "" for none.
    """

    sha256: str
    bytes: int
    etag: str = ""


@dataclass(frozen=True)
class Locked:
    """Weights as they were when they were fetched.

    Attributes:
        source: Hugging Face id or URL.
        revision: commit of the Hugging Face repository, "" for other servers.
        fetched: UTC, ISO 8601.
        files: by name.
    """

    source: str
    revision: str
    fetched: str
    files: Mapping[str, LockedFile]


class Lock:
    """The lock file of a folder of weights.

    Args:
        folder: that holds it.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK

    def all(self) -> dict[str, Locked]:
        """What was fetched, by name; nothing where there is no lock file.

        Raises:
            ValueError: the file is damaged.
            OSError: it cannot be read.
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
        """What was fetched under that name."""
        return self.all().get(name)

    def record(self, name: str, locked: Locked) -> None:
        """Note what was fetched, in place of what was noted before.

        Raises:
            ValueError: the file is damaged.
            OSError: it cannot be written; it is as it was.
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
