"""What became of a run: counts, failures by their reasons, gaps between shards, and the measurements."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from segmed.batch.manifest import COUNTS, open_to_read
from segmed.batch.measurements import COLUMNS, UNCERTAINTY
from segmed.batch.settings import PLACES
from segmed.imaging.durable import appear_whole

_SHARD = re.compile(r"manifest-(\d+)-of-(\d+)\.sqlite3")
_EXAMPLES = 3  # items named for each reason
_ROWS = 10_000  # rows of a group of a Parquet file
_HEAD = ("image", "mask_name", "model", "version")
_TYPES = {"label": "int64", "name": "string", "empty": "bool", "voxels": "int64", "components": "int64"}


@dataclass(frozen=True)
class FailureGroup:
    """Items that failed for one reason.

    Attributes:
        error: The sentence, without what differs between the items.
        count: Number of items.
        examples: Keys of some of them.
    """

    error: str
    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class BatchReport:
    """The state of all shards of a run.

    Attributes:
        settings: Settings of the run.
        states: Number of items by state.
        unsent: Number of items whose DICOM SEG the PACS lacks.
        seconds: Time that workers took for finished items.
        empty: Number of finished items with no voxel of any structure.
        failures: Failed items by reason, the most frequent first.
        missing: Shards that have not been planned.
        differing: Manifests with other settings than the first one.
        same_content: Number of finished items whose image has the content of an earlier one.
        notes: What was left out when the run was planned.
    """

    settings: dict[str, Any]
    states: dict[str, int]
    unsent: int = 0
    seconds: float = 0.0
    empty: int = 0
    failures: tuple[FailureGroup, ...] = ()
    missing: tuple[str, ...] = ()
    differing: tuple[str, ...] = ()
    same_content: int = 0
    notes: tuple[str, ...] = field(default=())

    @property
    def is_complete(self) -> bool:
        """Whether each item of each shard is done."""
        return set(self.states) <= {"done"} and not self.missing

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self) | {"complete": self.is_complete}


def collect(folder: Path) -> BatchReport:
    """Read the manifests of a run, also while it goes on.

    Raises:
        FileNotFoundError: There is no manifest.
        ValueError: One is damaged, or was not planned.
    """
    paths = manifests(folder)
    states, reasons, examples = Counter[str](), Counter[str](), dict[str, list[str]]()
    settings: list[dict[str, Any]] = []
    images, notes = set[bytes](), dict[str, None]()
    unsent = empty = same = 0
    seconds = 0.0
    for path in paths:
        with closing(open_to_read(path)) as sql:
            run = sql.execute("SELECT settings, notes FROM run").fetchone()
            if run is None:
                raise ValueError(f"{path.name} was not planned completely. Run the same command again.")
            settings.append(json.loads(run["settings"]))
            notes |= dict.fromkeys(json.loads(run["notes"]))
            states.update({row["state"]: row["n"] for row in sql.execute(COUNTS)})
            unsent += sql.execute(
                "SELECT count(*) FROM items WHERE phase = 'send' AND state <> 'done'"
            ).fetchone()[0]
            seconds += sql.execute("SELECT total(seconds) FROM items WHERE state = 'done'").fetchone()[0]
            for row in sql.execute("SELECT key, error FROM items WHERE state = 'failed' ORDER BY id"):
                reason = _without(row["error"], row["key"])
                reasons[reason] += 1
                if reasons[reason] <= _EXAMPLES:
                    examples.setdefault(reason, []).append(row["key"])
            for row in sql.execute("SELECT image FROM items WHERE state = 'done' AND image <> ''"):
                digest = bytes.fromhex(row["image"])[:12]  # a hundred thousand whole ones take much memory
                same += digest in images
                images.add(digest)
            full = "SELECT 1 FROM measurements m WHERE m.item = i.id AND NOT json_extract(m.facts, '$.empty')"
            empty += sql.execute(
                f"SELECT count(*) FROM items i WHERE state = 'done' AND NOT EXISTS ({full})"
            ).fetchone()[0]
    groups = [FailureGroup(r, n, tuple(examples[r])) for r, n in reasons.most_common()]
    other = [p.name for p, s in zip(paths, settings, strict=True) if _results(s) != _results(settings[0])]
    return BatchReport(
        settings[0],
        dict(states),
        unsent,
        seconds,
        empty,
        tuple(groups),
        _missing(paths),
        tuple(other),
        same,
        tuple(notes),
    )


def manifests(folder: Path) -> list[Path]:
    """The manifests of a run. Raises FileNotFoundError if there is none."""
    found = sorted(folder.glob("manifest*.sqlite3"))
    if not found:
        raise FileNotFoundError(f"There is no manifest in {folder}. Give the --out of `segmed batch run`.")
    return found


def measurement_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """One row per structure of each finished item, in the order of the manifests."""
    for path in manifests(folder):
        with closing(open_to_read(path)) as sql:
            model = json.loads(sql.execute("SELECT settings FROM run").fetchone()["settings"])["model"]
            for row in sql.execute(
                "SELECT key, name, model_version, facts FROM measurements JOIN items ON items.id = item "
                "WHERE state = 'done' OR phase = 'send' ORDER BY item, place"
            ):
                head = zip(_HEAD, (row["key"], row["name"], model, row["model_version"]), strict=True)
                yield dict(head) | json.loads(row["facts"])


def export_measurements(folder: Path, out: Path) -> int:
    """Write the measurements as .csv or .parquet; gives the number of rows.

    Raises:
        ValueError: The extension is unknown, or pyarrow is missing for Parquet.
        FileNotFoundError: There is no manifest.
        OSError: The file cannot be written.
    """
    if out.suffix.lower() == ".parquet":
        return _write_parquet(folder, out)
    if out.suffix.lower() != ".csv":
        raise ValueError(f"Measurements are written as .csv or .parquet, not as {out.name!r}.")
    count = 0
    with appear_whole(out) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*_HEAD, *COLUMNS, UNCERTAINTY], extrasaction="ignore")
        writer.writeheader()
        for row in measurement_rows(folder):
            writer.writerow(row)
            count += 1
    return count


def _write_parquet(folder: Path, out: Path) -> int:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError("Parquet needs pyarrow: pip install pyarrow. Or give a .csv file.") from error
    columns = [(name, "string") for name in _HEAD] + [
        (c, _TYPES.get(c, "float64")) for c in (*COLUMNS, UNCERTAINTY)
    ]
    schema = pyarrow.schema([(name, pyarrow.type_for_alias(kind)) for name, kind in columns])
    count, rows = 0, []
    with appear_whole(out) as part, parquet.ParquetWriter(part, schema) as writer:
        for row in measurement_rows(folder):
            rows.append(row)
            count += 1
            if len(rows) == _ROWS:
                writer.write_table(pyarrow.Table.from_pylist(rows, schema))
                rows = []
        writer.write_table(pyarrow.Table.from_pylist(rows, schema))
    return count


def _without(error: str, key: str) -> str:
    """A sentence in which names and numbers of one item do not matter."""
    name = key.rpartition("/")[2]
    return re.sub(r"\d+(\.\d+)*", "N", error.replace(key, "…").replace(name, "…"))[:300]


def _results(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in PLACES}


def _missing(paths: list[Path]) -> tuple[str, ...]:
    """Shards without a manifest, as far as the names of the others tell."""
    found = [(int(m[1]), int(m[2])) for path in paths if (m := _SHARD.fullmatch(path.name))]
    counts = {count for _, count in found}
    return tuple(
        f"{index}/{count}"
        for count in sorted(counts)
        for index in range(count)
        if (index, count) not in found
    )
