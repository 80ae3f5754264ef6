"""The state machine of retraining: one job at a time, which survives a crash in any of its steps.

    idle → reserved → training → judging → promoted | rejected
                 └────────┴──────────┴───→ failed

Idle means that no job is in one of the three middle states; the database allows one such job at most. Each
step is a transaction that states the previous state and the owner, so that of two processes that both claim a
job, one is refused. Another process takes over the job of a process that died, and continues with the step it
was in."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Protocol

from segmed.active.policy import Situation
from segmed.active.store.database import Database
from segmed.active.store.process_id import ProcessId, is_alive
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
    """The job belongs to another owner by now, or is in another state."""


@dataclass(frozen=True)
class Outcome:
    """The verdict of the gate.

    Attributes:
        promoted: Whether the version is served.
        version: Version that was kept.
        message: Verdict for the user.
    """

    promoted: bool
    version: str
    message: str = ""


class Steps(Protocol):
    """The steps of a retraining. Each step may be interrupted at any moment and is then called again."""

    def train(self, job: Job) -> None:
        """Train, from a checkpoint if there is one."""

    def judge(self, job: Job) -> Outcome:
        """Compare the new version with the served one, keep it, and serve it or not."""

    def outcome(self, job: Job) -> Outcome | None:
        """The outcome of a `judge` that was interrupted after its verdict; None if it had none."""


@dataclass
class Retraining:
    """The state machine.

    Args:
        database: Database that holds the jobs.
        attempts: Number of times a job is begun before it counts as failed: a training that kills its
            process, for instance by lack of memory, must not be repeated forever.
        owner: Process that carries out the jobs that this object reserves.
        alive: Function that checks whether another owner still runs.
    """

    database: Database
    attempts: int = 3
    owner: ProcessId = field(default_factory=ProcessId.current)
    alive: Callable[[ProcessId], bool] = is_alive
    _running: set[int] = field(default_factory=set)

    def active(self) -> Job | None:
        """The job that is under way, whoever its owner is; None if idle."""
        with self.database.read() as sql:
            return JobRepository(sql).active()

    def jobs(self) -> list[Job]:
        """All jobs, oldest first."""
        with self.database.read() as sql:
            return JobRepository(sql).all()

    def reserve(self, model: str, reason: str) -> Job | None:
        """Begin a job, which the caller has to `carry_out`.

        Returns:
            The job; None if one is under way already, even if its owner is dead (see `take_over`).
        """
        with self.database.write() as (sql, now, wall):
            jobs = JobRepository(sql)
            if jobs.active() is not None:
                return None
            job = jobs.add(model, reason, self.owner, LabelRepository(sql).newest_id(), now, wall)
            self._running.add(job.id)
        return job

    def take_over(self) -> Job | None:
        """Take over the job of a dead owner, or one of this owner that is not carried out any more.

        Returns:
            The job; None if there is no such job, or if it was begun too often and has failed now.
        """
        if self.active() is None:
            return None
        with self.database.write() as (sql, now, wall):
            jobs = JobRepository(sql)
            job = jobs.active()
            if job is None or (job.id in self._running if job.owner == self.owner else self.alive(job.owner)):
                return None
            if job.attempts >= self.attempts:
                message = (
                    f"It was begun {job.attempts} times and never ended; it last stopped while {job.state}."
                )
                jobs.move(job, "failed", "", message, now, wall)
                return None
            jobs.assign(job.id, self.owner, wall)
            self._running.add(job.id)
            return jobs.active()

    def give_back(self) -> None:
        """Return the attempt of a job that is interrupted by an orderly shutdown."""
        with self.database.write() as (sql, _, _):
            jobs = JobRepository(sql)
            job = jobs.active()
            if job is not None and job.owner == self.owner:
                jobs.return_attempt(job.id)

    def advance(self, job: Job, state: JobState, version: str = "", message: str = "") -> Job:
        """Take one step.

        Raises:
            ValueError: There is no such step.
            LostJobError: The job has another owner or state by now.
            OSError: The step could not be stored.
        """
        if state not in _STEPS.get(job.state, ()):
            allowed = ", ".join(_STEPS.get(job.state, ())) or "none"
            raise ValueError(f"A job does not go from {job.state} to {state}; allowed is {allowed}.")
        with self.database.write() as (sql, now, wall):
            jobs = JobRepository(sql)
            if job.owner != self.owner or not jobs.move(job, state, version, message, now, wall):
                raise LostJobError(f"Job {job.id} is no longer {job.state} in this process.")
            return jobs.get(job.id)

    def carry_out(self, job: Job, steps: Steps) -> Job:
        """Carry a job that was reserved or taken over to its end; an error in a step makes it `failed`.

        Raises:
            LostJobError: Another process owns the job.
            OSError: The end could not be stored; `take_over` returns the job again.
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
        """The facts for `policy.retraining_reason`.

        Args:
            drift: Description of the measured drift; "" if there is none.
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
