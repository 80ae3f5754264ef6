"""The manifest of a run: one SQLite file with the state of each item.

    pending → running → done          written in place of done while the PACS lacks the result
                      → failed        cannot be read, or crashed several times
                      → pending       interrupted, or the PACS was away

Files of an item are on the disk before the manifest says so, under names that depend on the item alone. A
process may therefore be killed at any point: an item that was running is processed again, and its files
replace those of the first attempt.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from segmed.batch.items import Item, Shard, renamed
from segmed.batch.tasks import Ending, Outcome, Phase, Task
from segmed.imaging.file_locks import try_lock
from segmed.imaging.sqlite_files import explained as errors_of_sqlite

_FORMAT = 1
_WAIT = 30.0  # s for readers of the file
_TABLES = """
CREATE TABLE run (id INTEGER PRIMARY KEY CHECK (id = 1), settings TEXT NOT NULL, planned INTEGER NOT NULL,
    shard TEXT NOT NULL, notes TEXT NOT NULL DEFAULT '[]');
CREATE TABLE items (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, name TEXT NOT NULL UNIQUE,
    source TEXT NOT NULL, size INTEGER NOT NULL, state TEXT NOT NULL DEFAULT 'pending',
    phase TEXT NOT NULL DEFAULT 'segment', tries INTEGER NOT NULL DEFAULT 0,
    interruptions INTEGER NOT NULL DEFAULT 0, error TEXT NOT NULL DEFAULT '', image TEXT NOT NULL DEFAULT '',
    outputs TEXT NOT NULL DEFAULT '{}', model_version TEXT NOT NULL DEFAULT '',
    seconds REAL NOT NULL DEFAULT 0);
CREATE INDEX by_state ON items (state, id);
CREATE INDEX by_image ON items (image) WHERE image <> '';
CREATE TABLE measurements (item INTEGER NOT NULL, place INTEGER NOT NULL, facts TEXT NOT NULL,
    PRIMARY KEY (item, place)) WITHOUT ROWID;
"""
MOST_TRIES = 3  # of an item that makes its worker crash
MOST_INTERRUPTIONS = 10  # deaths of the whole process while an item was under way


class Manifest:
    """The manifest of one shard, held by one run at a time.

    Args:
        folder: Folder of the run, which is created if necessary.
        shard: Part of the archive that is processed.

    Raises:
        ValueError: Another run holds the manifest, or the file is damaged or of another format.
        OSError: The folder cannot be written.
    """

    def __init__(self, folder: Path, shard: Shard | None = None) -> None:
        self.folder, self.shard = folder, shard or Shard()
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / self.shard.file
        self._lock = _locked(self.path.with_suffix(".lock"))
        try:
            with explained(self.path):
                self.sql = _open(self.path)
                if not self.sql.execute("PRAGMA user_version").fetchone()[0]:
                    self.sql.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {_FORMAT}; COMMIT;")
        except BaseException:
            self._lock.close()
            raise

    def close(self) -> None:
        """Close the file and let others use it."""
        self.sql.close()
        self._lock.close()

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction. Raises OSError if nothing could be written, for instance on a full disk."""
        with explained(self.path):
            self.sql.execute("BEGIN IMMEDIATE")
            try:
                yield self.sql
                self.sql.execute("COMMIT")
            finally:
                if self.sql.in_transaction:
                    self.sql.execute("ROLLBACK")

    def settings(self) -> dict[str, Any] | None:
        """The settings of the run, or None before it was planned."""
        row = self.sql.execute("SELECT settings FROM run WHERE planned = 1").fetchone()
        return json.loads(row["settings"]) if row else None

    def plan(self, settings: dict[str, Any], items: Iterable[Item], notes: Sequence[str] = ()) -> int:
        """Store settings and items, all or nothing; items that are known already stay as they are.

        Returns:
            Number of items that were added.
        """
        with self.write() as sql:
            before = {r["key"]: r["name"].lower() for r in sql.execute("SELECT key, name FROM items")}
            sql.execute(
                "INSERT INTO run (id, settings, planned, shard, notes) VALUES (1, ?, 1, ?, ?) ON CONFLICT "
                "(id) DO UPDATE SET settings = excluded.settings, notes = excluded.notes",
                (json.dumps(settings), str(self.shard), json.dumps(list(notes))),
            )
            fresh = renamed([i for i in items if i.key not in before], set(before.values()))
            sql.executemany(
                "INSERT INTO items (key, name, source, size) VALUES (?, ?, ?, ?)",
                ((i.key, i.name, json.dumps(i.source), i.size) for i in fresh),
            )
            after: int = sql.execute("SELECT count(*) FROM items").fetchone()[0]
        return after - len(before)

    def recover(self) -> int:
        """Return items to the queue that were under way when the process died; gives their number."""
        with self.write() as sql:
            sql.execute("UPDATE items SET interruptions = interruptions + 1 WHERE state = 'running'")
            sql.execute(
                "UPDATE items SET state = 'failed', error = 'The process ended ' || interruptions || ' times "
                "while this item was processed; memory may have run out. Look at the image, then use "
                "--retry-failed.' WHERE state = 'running' AND interruptions >= ?",
                (MOST_INTERRUPTIONS,),
            )
            return sql.execute("UPDATE items SET state = 'pending' WHERE state = 'running'").rowcount

    def retry_failed(self) -> int:
        """Return failed items to the queue; gives their number."""
        with self.write() as sql:
            return sql.execute(
                "UPDATE items SET state = 'pending', tries = 0, interruptions = 0, error = '' WHERE state = "
                "'failed'"
            ).rowcount

    def next_tasks(self, after: int, count: int) -> list[Task]:
        """Waiting items with numbers above `after`, in order."""
        rows = self.sql.execute(
            "SELECT id, key, name, source, size, phase, tries FROM items WHERE state = 'pending' AND id > ? "
            "ORDER BY id LIMIT ?",
            (after, count),
        )
        return [
            Task(
                r["id"],
                r["key"],
                r["name"],
                json.loads(r["source"]),
                r["size"],
                Phase(r["phase"]),
                r["tries"],
            )
            for r in rows
        ]

    def begin(self, task: Task) -> None:
        """Note that an item is under way; within `write`."""
        self.sql.execute("UPDATE items SET state = 'running' WHERE id = ?", (task.item,))

    def end(self, outcome: Outcome, version: str = "") -> str:
        """Note how a task ended, within `write`; gives the state of the item."""
        sql, item, ending = self.sql, outcome.item, outcome.ending
        if ending in (Ending.DONE, Ending.WRITTEN):
            state = "done" if ending is Ending.DONE else "pending"
            phase = Phase.SEGMENT if ending is Ending.DONE else Phase.SEND
            sql.execute(
                "UPDATE items SET state = ?, phase = ?, error = ?, seconds = seconds + ? WHERE id = ?",
                (state, phase, outcome.error, outcome.seconds, item),
            )
            if outcome.image:  # not after a task that only sent
                sql.execute(
                    "UPDATE items SET image = ?, outputs = ?, model_version = ? WHERE id = ?",
                    (outcome.image, json.dumps(dict(outcome.outputs)), version, item),
                )
                sql.execute("DELETE FROM measurements WHERE item = ?", (item,))
                sql.executemany(
                    "INSERT INTO measurements VALUES (?, ?, ?)",
                    ((item, n, json.dumps(dict(row))) for n, row in enumerate(outcome.measurements)),
                )
            return state
        if ending in (Ending.AWAY, Ending.FULL):
            sql.execute("UPDATE items SET state = 'pending', error = ? WHERE id = ?", (outcome.error, item))
            return "pending"
        sql.execute("UPDATE items SET tries = tries + 1 WHERE id = ?", (item,))
        tries = sql.execute("SELECT tries FROM items WHERE id = ?", (item,)).fetchone()["tries"]
        state = "pending" if ending is Ending.CRASHED and tries < MOST_TRIES else "failed"
        sql.execute("UPDATE items SET state = ?, error = ? WHERE id = ?", (state, outcome.error, item))
        return state

    def counts(self) -> dict[str, int]:
        """Number of items by state."""
        return {r["state"]: r["n"] for r in self.sql.execute(COUNTS)}


COUNTS = "SELECT state, count(*) AS n FROM items GROUP BY state"


def open_to_read(path: Path) -> sqlite3.Connection:
    """A manifest that another process may be writing to; nothing is locked."""
    with explained(path):
        return _open(path)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Errors of SQLite as OSError or ValueError with what can be done."""
    try:
        with errors_of_sqlite(path, "The manifest cannot be used"):
            yield
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        raise ValueError(
            f"The manifest {path} is damaged ({error}). Restore it from a backup, or move it away to process "
            "all items again."
        ) from error


def _open(path: Path) -> sqlite3.Connection:
    sql = sqlite3.connect(path, timeout=_WAIT, isolation_level=None, check_same_thread=False)
    sql.row_factory = sqlite3.Row
    try:
        sql.execute("PRAGMA journal_mode = WAL")
        # what was committed survives the death of the process; after a power failure the last items may be
        # processed again, which changes nothing
        sql.execute("PRAGMA synchronous = NORMAL")
        version = sql.execute("PRAGMA user_version").fetchone()[0]
        if version > _FORMAT:
            raise ValueError(
                f"{path} is of format {version}, this version of SegMed reads up to {_FORMAT}. Use a newer "
                "version of SegMed."
            )
    except BaseException:
        sql.close()
        raise
    return sql


def _locked(path: Path) -> TextIO:
    file = path.open("a")
    try:
        free = try_lock(file)
    except OSError:
        file.close()
        raise
    if not free:
        file.close()
        raise ValueError(
            f"Another run is using {path.with_suffix('.sqlite3')}. Wait for its end, or give another --out "
            "or --shard."
        )
    return file
