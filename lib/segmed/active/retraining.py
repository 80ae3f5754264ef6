"""One retraining at a time, from the decision to the verdict, over crashes of any of its steps.

    idle → reserved → training → judging → promoted | rejected
                 └────────┴──────────┴───→ failed

Idle is that no job is in one of the three states of the middle; the database lets no second one in. Each step is a
transaction that names the state it comes from and the owner, so that of two who believe they own a job one is refused.
A job whose process died is taken over by whoever finds it and goes on with the step it was in.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Literal, Protocol

from segmed.active.database import Database
from segmed.active.owner import ProcessId, is_alive
from segmed.active.policy import Situation

logger = logging.getLogger(__name__)

JobState = Literal["reserved", "training", "judging", "promoted", "rejected", "failed"]
_ACTIVE = ("reserved", "training", "judging")
_STEPS: dict[str, tuple[str, ...]] = {
    "reserved": ("training", "failed"),
    "training": ("judging", "failed"),
    "judging": ("promoted", "rejected", "failed"),
}


class LostJobError(RuntimeError):
    """The job is another owner's by now, or in another state."""


@dataclass(frozen=True)
class Job:
    """A retraining.

    Attributes:
        id: rises.
        model: name in the registry.
        state: where it is.
        reason: why it was begun.
        owner: who carries it out.
        attempts: how often it was begun, 1 if nothing went wrong.
        upto: id of the newest label when it was reserved; newer ones count for the next retraining.
        version: what came of it, "" if nothing.
        message: for the user.
        created: s since 1970.
        changed: likewise, of the last step.
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


@dataclass(frozen=True)
class Outcome:
    """What the gate said.

    Attributes:
        promoted: whether the version is served.
        version: that was kept.
        message: the verdict.
    """

    promoted: bool
    version: str
    message: str = ""


class Steps(Protocol):
    """What a retraining does. Each step may be killed at any moment and is called again then."""

    def train(self, job: Job) -> None:
        """Train, going on from a checkpoint if there is one."""

    def judge(self, job: Job) -> Outcome:
        """Compare with what is served, keep the version, and serve it or not."""

    def outcome(self, job: Job) -> Outcome | None:
        """What a `judge` that was killed had brought about already; None if it had not."""


@dataclass
class Retraining:
    """The state machine.

    Args:
        database: where it is kept.
        attempts: how often a job is begun before it counts as failed: a training that kills its process, for want of
            memory perhaps, must not do so forever.
        owner: who carries out what this object reserves.
        alive: whether another owner still is.
    """

    database: Database
    attempts: int = 3
    owner: ProcessId = field(default_factory=ProcessId.current)
    alive: Callable[[ProcessId], bool] = is_alive
    _running: set[int] = field(default_factory=set)

    def active(self) -> Job | None:
        """The job that is under way, whoever its owner is; None is idle."""
        with self.database.read() as sql:
            return _active(sql)

    def jobs(self) -> list[Job]:
        """All of them, oldest first."""
        with self.database.read() as sql:
            return [_job(row) for row in sql.execute("SELECT * FROM jobs ORDER BY id")]

    def reserve(self, model: str, reason: str) -> Job | None:
        """Begin a job, which the caller has to `carry_out`.

        Returns:
            None if one is under way already, be its owner dead (see `take_over`).
        """
        with self.database.write() as (sql, now, wall):
            if _active(sql) is not None:
                return None
            upto = sql.execute("SELECT coalesce(max(id), 0) FROM labels").fetchone()[0]
            sql.execute(
                "INSERT INTO jobs (model, state, reason, owner, attempts, upto, version, message, created, changed, "
                "elapsed) VALUES (?, 'reserved', ?, ?, 1, ?, '', '', ?, ?, ?)",
                (model, reason, json.dumps(asdict(self.owner)), upto, wall, wall, now),
            )
            job = _active(sql)
            assert job is not None
            self._running.add(job.id)
        return job

    def take_over(self) -> Job | None:
        """The job of an owner that is dead, or one of ours that nobody carries out any more; ours from now on.

        Returns:
            None if there is no such job, or if it was begun too often and has failed now.
        """
        if self.active() is None:
            return None
        with self.database.write() as (sql, now, wall):
            job = _active(sql)
            if job is None or (job.id in self._running if job.owner == self.owner else self.alive(job.owner)):
                return None
            if job.attempts >= self.attempts:
                message = (
                    f"It was begun {job.attempts} times and never ended; the last time it stopped while {job.state}."
                )
                _move(sql, job, "failed", "", message, wall, now)
                return None
            sql.execute(
                "UPDATE jobs SET owner = ?, attempts = attempts + 1, changed = ? WHERE id = ?",
                (json.dumps(asdict(self.owner)), wall, job.id),
            )
            self._running.add(job.id)
            return _active(sql)

    def give_back(self) -> None:
        """This process ends in good order, so that whoever goes on with its job has an attempt more."""
        with self.database.write() as (sql, _, _):
            job = _active(sql)
            if job is not None and job.owner == self.owner:
                sql.execute("UPDATE jobs SET attempts = attempts - 1 WHERE id = ?", (job.id,))

    def advance(self, job: Job, state: JobState, version: str = "", message: str = "") -> Job:
        """Take one step.

        Raises:
            ValueError: there is no such step.
            LostJobError: the job has another owner or state by now.
            OSError: the step was not taken.
        """
        if state not in _STEPS.get(job.state, ()):
            allowed = ", ".join(_STEPS.get(job.state, ())) or "none"
            raise ValueError(f"A job does not go from {job.state} to {state}; allowed is {allowed}.")
        with self.database.write() as (sql, now, wall):
            if job.owner != self.owner or not _move(sql, job, state, version, message, wall, now):
                raise LostJobError(f"Job {job.id} is not {job.state} in this process's hands any more.")
            return _job(sql.execute("SELECT * FROM jobs WHERE id = ?", (job.id,)).fetchone())

    def carry_out(self, job: Job, steps: Steps) -> Job:
        """Take a reserved or taken over job to its end; an error of a step makes it `failed`.

        Raises:
            LostJobError: somebody else has it.
            OSError: the end could not be written down; `take_over` gives the job again.
        """
        try:
            begun = job.attempts > 1 or job.state != "reserved"
            outcome = steps.outcome(job) if begun else None
            if job.state == "reserved":
                job = self.advance(job, "training")
            if job.state == "training":
                if outcome is None:
                    steps.train(job)
                job = self.advance(job, "judging")
            outcome = outcome or steps.judge(job)
            return self.advance(job, "promoted" if outcome.promoted else "rejected", outcome.version, outcome.message)
        except LostJobError:
            raise
        except Exception as error:
            logger.warning("Retraining %s failed while %s: %s.", job.id, job.state, type(error).__name__)
            return self.advance(job, "failed", message=f"It failed while {job.state}: {error}")
        finally:
            self._running.discard(job.id)

    def situation(self, drift: str = "") -> Situation:
        """What `policy.retraining_reason` decides by.

        Args:
            drift: what a measurement said, "" for none.
        """
        with self.database.read() as sql:
            now = self.database.now(sql)
            rows = sql.execute("SELECT state, upto, elapsed FROM jobs ORDER BY id DESC").fetchall()
            finished = next((r for r in rows if r["state"] in ("promoted", "rejected")), None)
            failures = 0
            for row in rows:
                if row["state"] != "failed":
                    break
                failures += 1
            query = "SELECT count(DISTINCT image) FROM labels WHERE state = 'kept' AND id > ?"
            new = sql.execute(query, (finished["upto"] if finished else 0,)).fetchone()[0]
            return Situation(
                busy=_active(sql) is not None,
                new_labels=new,
                hours=(now - (finished["elapsed"] if finished else 0.0)) / 3600,
                drift=drift,
                failures=failures,
                hours_since_failure=(now - rows[0]["elapsed"]) / 3600 if failures else 0.0,
            )


def _active(sql: sqlite3.Connection) -> Job | None:
    row = sql.execute(f"SELECT * FROM jobs WHERE state IN {_ACTIVE}").fetchone()
    return None if row is None else _job(row)


def _move(sql: sqlite3.Connection, job: Job, state: str, version: str, message: str, wall: float, now: float) -> bool:
    return bool(
        sql.execute(
            "UPDATE jobs SET state = ?, version = ?, message = ?, changed = ?, elapsed = ? WHERE id = ? AND state = ? "
            "AND owner = ?",
            (state, version, message, wall, now, job.id, job.state, json.dumps(asdict(job.owner))),
        ).rowcount
    )


def _job(row: sqlite3.Row) -> Job:
    facts = {key: row[key] for key in row.keys() if key != "elapsed"}  # noqa: SIM118 - a Row iterates its values
    return Job(**{**facts, "owner": ProcessId(**json.loads(row["owner"]))})
