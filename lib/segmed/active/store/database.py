"""The SQLite database of active learning: one transaction at a time, over processes and crashes."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from segmed.active.store.clock import Reading, passed, read_clock
from segmed.active.tables.schema import FORMATS
from segmed.imaging.file_locks import lock
from segmed.imaging.sqlite_files import explained

logger = logging.getLogger(__name__)

_WAIT = 30.0  # s for other processes' transactions


class Transaction(NamedTuple):
    """A transaction during which nobody else writes.

    Attributes:
        sql: Open connection.
        now: Time since the database was created in seconds, which never goes back.
        wall: System time in seconds since 1970, for display.
    """

    sql: sqlite3.Connection
    now: float
    wall: float


class Database:
    """A database file in a folder of a local disk; safe for threads and processes.

    A damaged file is renamed and replaced by a new one: scores and embeddings are computed again, and the
    label files are in the studies.

    Args:
        folder: Folder of the file, which is created if necessary.
        clock: Function that reads the clocks.

    Raises:
        OSError: The file can be neither read nor created.
        ValueError: The file was written by a newer version of SegMed.
    """

    def __init__(self, folder: Path, clock: Callable[[], Reading] = read_clock) -> None:
        self.path = Path(folder) / "active.sqlite3"
        self._clock = clock
        self._lock = threading.RLock()
        self._opened: tuple[int, sqlite3.Connection] | None = None
        self._inherited: list[sqlite3.Connection] = []  # closing them would drop the parent's locks
        with self.write():
            pass

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """Write all or nothing, and to the disk before the block ends; other writers wait.

        Raises:
            OSError: Nothing was changed, for instance because the disk is full.
        """
        with self._lock, self._explained():
            sql = self._connection()
            sql.execute("BEGIN IMMEDIATE")
            try:
                reading = self._clock()
                yield Transaction(sql, _tick(sql, reading), reading.wall)
                sql.execute("COMMIT")
            finally:
                if sql.in_transaction:
                    with suppress(sqlite3.Error):
                        sql.execute("ROLLBACK")

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Read from a view that does not change meanwhile."""
        with self._lock, self._explained():
            sql = self._connection()
            sql.execute("BEGIN")
            try:
                yield sql
            finally:
                sql.execute("ROLLBACK")

    def now(self, sql: sqlite3.Connection) -> float:
        """`Transaction.now` for a transaction that only reads."""
        return _elapsed(sql, self._clock())

    def close(self) -> None:
        """Close the file; it is opened again when it is needed."""
        with self._lock:
            if self._opened and self._opened[0] == os.getpid():
                self._opened[1].close()
            self._opened = None

    def _connection(self) -> sqlite3.Connection:
        if (
            self._opened and self._opened[0] != os.getpid()
        ):  # SQLite's connections must not be carried over a fork
            self._inherited.append(self._opened[1])
            self._opened = None
        if self._opened is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with (self.path.parent / ".active.lock").open("a") as file:
                lock(file)
                try:
                    self._opened = os.getpid(), _open(self.path)
                except sqlite3.OperationalError:
                    raise
                except sqlite3.DatabaseError as error:
                    _set_aside(self.path, error)
                    self._opened = os.getpid(), _open(self.path)
        return self._opened[1]

    def _explained(self) -> AbstractContextManager[None]:
        return explained(self.path, "The state of active learning cannot be kept")


def _open(path: Path) -> sqlite3.Connection:
    sql = sqlite3.connect(path, timeout=_WAIT, isolation_level=None, check_same_thread=False)
    try:
        sql.row_factory = sqlite3.Row
        sql.execute("PRAGMA journal_mode = WAL")
        sql.execute("PRAGMA synchronous = FULL")
        if (fault := sql.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(fault)
        version = sql.execute("PRAGMA user_version").fetchone()[0]
        if version > len(FORMATS):
            raise ValueError(
                f"{path.name} is of format {version}, this version of SegMed reads up to {len(FORMATS)}. Use "
                "a newer version, or move the file away to begin again."
            )
        for number, change in enumerate(FORMATS[version:], version + 1):
            sql.executescript(f"BEGIN IMMEDIATE; {change} PRAGMA user_version = {number}; COMMIT;")
    except BaseException:
        sql.close()
        raise
    return sql


def _set_aside(path: Path, error: Exception) -> None:
    number = 1
    while (kept := path.with_name(f"active.damaged-{number}.sqlite3")).exists():
        number += 1
    path.replace(kept)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    logger.error("%s is damaged (%s) and was renamed to %s; a new file is created.", path, error, kept.name)


def _tick(sql: sqlite3.Connection, now: Reading) -> float:
    """Time since the file was created in seconds; updates the clock in the file."""
    elapsed = _elapsed(sql, now)
    sql.execute("DELETE FROM clock")
    sql.execute("INSERT INTO clock VALUES (?, ?, ?, ?)", (*now, elapsed))
    return elapsed


def _elapsed(sql: sqlite3.Connection, now: Reading) -> float:
    row = sql.execute("SELECT boot, uptime, wall, elapsed FROM clock").fetchone()
    return row["elapsed"] + passed(Reading(row["boot"], row["uptime"], row["wall"]), now) if row else 0.0
