"""The retrainings: one row per job, of which one at most is under way."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple

from segmed.active.store.process_id import ProcessId

JobState = Literal["reserved", "training", "judging", "promoted", "rejected", "failed"]
_UNDER_WAY = "state IN ('reserved', 'training', 'judging')"


@dataclass(frozen=True)
class Job:
    """A retraining.

    Attributes:
        id: Identifier, larger than those of all earlier jobs.
        model: Name of the model in the registry.
        state: State of the job, see `retraining`.
        reason: Why the retraining was begun.
        owner: Process that carries the job out.
        attempts: Number of times the job was begun; 1 if nothing went wrong.
        upto: Identifier of the newest label when the job was reserved; newer labels count for the next
            retraining.
        version: Model version that the job produced; "" if none.
        message: Message for the user.
        created: Time at which the job was reserved, in seconds since 1970.
        changed: Time of its last step, in seconds since 1970.
    """

    id: int
    model: str
    state: JobState
    reason: str
    owner: ProcessId
    attempts: int
    upto: int
    version: str
    message: str
    created: float
    changed: float


class JobProgress(NamedTuple):
    """How far a job came and when.

    Attributes:
        state: State of the job.
        upto: Identifier of the newest label when the job was reserved.
        elapsed: `Transaction.now` of its last step, in seconds.
    """

    state: JobState
    upto: int
    elapsed: float


class JobRepository:
    """The table `jobs`.

    Args:
        connection: Open connection, within a transaction of the caller.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def active(self) -> Job | None:
        """The job that is under way; None if there is none."""
        row = self._connection.execute(f"SELECT * FROM jobs WHERE {_UNDER_WAY}").fetchone()
        return None if row is None else _job(row)

    def all(self) -> list[Job]:
        """All jobs, oldest first."""
        return [_job(row) for row in self._connection.execute("SELECT * FROM jobs ORDER BY id")]

    def get(self, job: int) -> Job:
        """The job with this identifier, which has to exist."""
        return _job(self._connection.execute("SELECT * FROM jobs WHERE id = ?", (job,)).fetchone())

    def progress(self) -> list[JobProgress]:
        """How far all jobs came, newest first."""
        rows = self._connection.execute("SELECT state, upto, elapsed FROM jobs ORDER BY id DESC")
        return [JobProgress(*row) for row in rows]

    def add(self, model: str, reason: str, owner: ProcessId, upto: int, now: float, wall: float) -> Job:
        """Store a job as `reserved`, for the first time begun.

        Raises:
            sqlite3.IntegrityError: Another job is under way.
        """
        number = self._connection.execute(
            "INSERT INTO jobs (model, state, reason, owner, attempts, upto, version, message, created, "
            "changed, elapsed) VALUES (?, 'reserved', ?, ?, 1, ?, '', '', ?, ?, ?)",
            (model, reason, _json(owner), upto, wall, wall, now),
        ).lastrowid
        assert number is not None
        return self.get(number)

    def move(self, job: Job, state: JobState, version: str, message: str, now: float, wall: float) -> bool:
        """Change the state of a job; returns False if it has another state or owner than `job` says."""
        changed = self._connection.execute(
            "UPDATE jobs SET state = ?, version = ?, message = ?, changed = ?, elapsed = ? WHERE id = ? AND "
            "state = ? AND owner = ?",
            (state, version, message, wall, now, job.id, job.state, _json(job.owner)),
        )
        return bool(changed.rowcount)

    def assign(self, job: int, owner: ProcessId, wall: float) -> None:
        """Give a job to another owner, who begins it once more."""
        query = "UPDATE jobs SET owner = ?, attempts = attempts + 1, changed = ? WHERE id = ?"
        self._connection.execute(query, (_json(owner), wall, job))

    def return_attempt(self, job: int) -> None:
        """Count one attempt less, because the last one was ended in good order."""
        self._connection.execute("UPDATE jobs SET attempts = attempts - 1 WHERE id = ?", (job,))


def _json(owner: ProcessId) -> str:
    return json.dumps(asdict(owner))


def _job(row: sqlite3.Row) -> Job:
    facts = {key: row[key] for key in row.keys() if key != "elapsed"}  # noqa: SIM118 - a Row iterates its values
    return Job(**{**facts, "owner": ProcessId(**json.loads(row["owner"]))})
