"""Names and colours of a label map in a table beside it, as BIDS has them for segmentations (`*_dseg.tsv`).

NIfTI holds numbers without their meaning. The table has a row for each value: `index`, `name` and
`color`, which is `#rrggbb` or `n/a`.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable
from pathlib import Path

from segmed.imaging.durable import appear_whole
from segmed.imaging.labels.companions import check_companion, companion_of
from segmed.imaging.labels.segments import Colour, StoredSegment

EXTENSION = ".tsv"
_COLUMNS = ["index", "name", "color"]
_LARGEST = 2**20


def sidecar_of(path: str | os.PathLike[str]) -> Path:
    """Path of the table of a label map, whether it exists or not."""
    return companion_of(path, EXTENSION)


def write_sidecar(segments: Iterable[StoredSegment], path: str | os.PathLike[str], sync: bool = True) -> None:
    """Write the table beside a label map.

    Args:
        segments: Segments, listed by their values in the flat label map.
        path: Path of the label map.
        sync: Whether to flush the table to the disk.

    Raises:
        ValueError: There is a file of another kind at the table's path.
        OSError: The table cannot be written.
    """
    target = check_sidecar(path)
    with appear_whole(target, EXTENSION, sync) as name, name.open("w", encoding="utf-8", newline="") as file:
        file.write(sidecar_text(segments))


def check_sidecar(path: str | os.PathLike[str]) -> Path:
    """The path of the table of a label map, checked before it is written.

    Raises:
        ValueError: There is a file of another kind at this path, which must not be overwritten.
    """
    return check_companion(path, EXTENSION, _is_table, "a table of label names")


def _is_table(file: Path) -> bool:
    """Whether a file begins as our tables do; pipes, which would be waited for, do not."""
    if not file.is_file():
        return False
    with file.open("rb") as opened:
        return opened.read(64).decode("utf-8", "replace").startswith("\t".join(_COLUMNS[:2]))


def sidecar_text(segments: Iterable[StoredSegment]) -> str:
    """The table."""
    rows = [(str(s.value), _plain(s.name) or f"label {s.value}", _hex(s.colour)) for s in segments]
    return "".join("\t".join(row) + "\n" for row in [_COLUMNS, *rows])


def read_sidecar(path: str | os.PathLike[str]) -> list[StoredSegment]:
    """The segments in the table beside a label map; empty if there is none, or a file of another kind."""
    table = sidecar_of(path)
    if not table.is_file() or table.stat().st_size > _LARGEST:
        return []
    segments = []
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
                value, name = int(row["index"]), row["name"].strip()
                if value > 0 and name:
                    colour = _parsed(row.get("color") or "")
                    segment = StoredSegment(name, value, 0, value)
                    segments.append(segment.coloured(colour) if colour else segment)
    except (KeyError, TypeError, AttributeError, ValueError, csv.Error):
        return []
    return segments


def _plain(name: str) -> str:
    return " ".join(name.split())


def _hex(colour: Colour | None) -> str:
    return "n/a" if colour is None else "#" + "".join(f"{c:02x}" for c in colour)


def _parsed(text: str) -> Colour | None:
    try:
        r, g, b = bytes.fromhex(text.removeprefix("#"))
    except ValueError:
        return None
    return r, g, b
