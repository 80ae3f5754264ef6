"""One retraining at a time, from the decision to the verdict, over crashes of any of its steps.

    idle → reserved → training → judging → promoted | rejected
                 └────────┴──────────┴───→ failed

Idle is that no job is in one of the three states of the middle; the database lets no second one in. Each step is a
transaction that names the state it comes from and the owner, so that of two who believe they own a job one is refused.
A job whose process died is taken over by whoever finds it and goes on with the step it was in.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Protocol

from segmed.active.database import Database
from segmed.active.owner import ProcessId, is_alive
from segmed.active.policy import Situation
from segmed.active.tables.jobs import Job, JobRepository, JobState
from segmed.active.tables.labels import LabelRepository

logger = logging.getLogger(__name__)

__all__ = ["Job", "JobState", "LostJobError", "Outcome", "Retraining", "Steps"]
_STEPS: dict[str, tuple[str, ...]] = {
    "reserved": ("training", "failed"),
    "training": ("judging", "failed"),
    "judging": ("promoted", "rejected", "failed"),
}


class LostJobError(RuntimeError):
    """The job is another owner's by now, or in another state."""


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
            return JobRepository(sql).active()

    def jobs(self) -> list[Job]:
        """All of them, oldest first."""
        with self.database.read() as sql:
            return JobRepository(sql).all()

    def reserve(self, model: str, reason: str) -> Job | None:
        """Begin a job, which the caller has to `carry_out`.

        Returns:
            None if one is under way already, be its owner dead (see `take_over`).
        """
        with self.database.write() as (sql, now, wall):
            jobs = JobRepository(sql)
            if jobs.active() is not None:
                return None
            job = jobs.add(model, reason, self.owner, LabelRepository(sql).newest_id(), now, wall)
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
            jobs = JobRepository(sql)
            job = jobs.active()
            if job is None or (job.id in self._running if job.owner == self.owner else self.alive(job.owner)):
                return None
            if job.attempts >= self.attempts:
                message = f"It was begun {job.attempts} times and never ended; the last time it stopped while {job.state}."
                jobs.move(job, "failed", "", message, now, wall)
                return None
            jobs.assign(job.id, self.owner, wall)
            self._running.add(job.id)
            return jobs.active()

    def give_back(self) -> None:
        """This process ends in good order, so that whoever goes on with its job has an attempt more."""
        with self.database.write() as (sql, _, _):
            jobs = JobRepository(sql)
            job = jobs.active()
            if job is not None and job.owner == self.owner:
                jobs.return_attempt(job.id)

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
            jobs = JobRepository(sql)
            if job.owner != self.owner or not jobs.move(job, state, version, message, now, wall):
                raise LostJobError(f"Job {job.id} is not {job.state} in this process's hands any more.")
            return jobs.get(job.id)

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
            return self.advance(
                job, "promoted" if outcome.promoted else "rejected", outcome.version, outcome.message
            )
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
            table = JobRepository(sql)
            jobs = table.progress()
            finished = next((job for job in jobs if job.state in ("promoted", "rejected")), None)
            failures = sum(1 for _ in takewhile(lambda job: job.state == "failed", jobs))
            return Situation(
                busy=table.active() is not None,
                new_labels=LabelRepository(sql).count_new_images(finished.upto if finished else 0),
                hours=(now - (finished.elapsed if finished else 0.0)) / 3600,
                drift=drift,
                failures=failures,
                hours_since_failure=(now - jobs[0].elapsed) / 3600 if failures else 0.0,
            )
