"""Continual retraining in the background: one at a time, in a separate process, across restarts."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.utils.async_tasks.utils import background_executors, processes, run_background_task, tasks

from segmed.active.continual import (
    LessonConfig,
    TrainingSteps,
    learnt_until,
    note_of,
    select_training_images,
    training_lock,
)
from segmed.active.policy import retraining_reason
from segmed.active.retraining import Job, LostJobError, Retraining
from segmed.active.store.labels import LabelLog
from segmed.server.engine import Engine
from segmed.server.tasks.train import MethodTrainTask, job_config

logger = logging.getLogger(__name__)

_POLL = 0.3  # s
_NICE = 10  # users' prompts come first
_ENDS_WITHIN = 5.0  # s
_UNDER_WAY = ("SUBMITTED", "RUNNING")


class Retrainer:
    """Begins retrainings, continues those of a server that has ended, and carries them out.

    Args:
        engine: Engine with settings and registry.
        log: Log of the labels.
        trainer: Function that returns the trainer of a model.
        ended: Function that is called when a retraining has ended.
    """

    def __init__(
        self,
        engine: Engine,
        log: LabelLog,
        trainer: Callable[[str], MethodTrainTask],
        ended: Callable[[], None],
    ) -> None:
        self.engine, self.log = engine, log
        self.settings = engine.settings.learning
        self.retraining = Retraining(log.database)
        self._steps = TrainingSteps(engine.registry, self._run)
        self._trainer, self._ended = trainer, ended
        self._thread: threading.Thread | None = None
        self._closed, self._beginning = threading.Event(), threading.Lock()

    def check(self, drift: str = "") -> None:
        """Begin a retraining if the policy says so, or take one over.

        Args:
            drift: Description of the measured drift; "" if there is none.
        """
        if self._closed.is_set() or self.running():
            return
        job = self.retraining.take_over()
        if job is None:
            reason = retraining_reason(self.settings.policy, self.retraining.situation(drift))
            job = self.retraining.reserve(self.settings.model, reason) if reason else None
        if job is not None:
            logger.warning("Retraining %s of %s begins: %s", job.id, job.model, job.reason)
            self._thread = threading.Thread(
                target=self._carry_out, args=(job,), daemon=True, name="retraining"
            )
            self._thread.start()

    def running(self) -> bool:
        """Whether a retraining is under way in this server."""
        thread = self._thread
        return thread is not None and thread.is_alive()

    def close(self) -> None:
        """End the training process, for which Python would wait; the next server continues the job."""
        with self._beginning:
            self._closed.set()
        with suppress(OSError):
            self.retraining.give_back()
        executor = background_executors.get("train")
        if executor is None:
            return
        executor.shutdown(wait=False, cancel_futures=True)
        deadline = time.monotonic() + _ENDS_WITHIN
        while any(t.is_alive() for t in executor._threads) and time.monotonic() < deadline:
            for process in list(processes("train").values()):  # the one that is just being begun comes late
                process.terminate()
            time.sleep(0.05)

    def status(self) -> dict[str, Any]:
        """The retraining under way, or the last one, as JSON values for clients."""
        jobs = self.retraining.jobs()
        if not jobs:
            return {"state": "none yet", "jobs": 0}
        last = jobs[-1]
        facts = {
            name: getattr(last, name) for name in ("id", "model", "state", "reason", "version", "message")
        }
        return {**facts, "jobs": len(jobs)}

    def learn(self, number: int, datastore: Datastore) -> dict[str, Any]:
        """Carry out the training of a job, in the process that was started for it.

        Args:
            number: Identifier of the job.
            datastore: Datastore with the final labels to train on.

        Returns:
            The trainer's `stats` at the end.

        Raises:
            ValueError: There are no labels to train on, or an option is invalid.
            LostJobError: The job is not under way any more.
        """
        if hasattr(os, "nice"):  # not on Windows
            os.nice(_NICE)
        job = self.retraining.active()
        if job is None or job.id != number:
            raise LostJobError(f"Job {number} is not under way any more.")
        task = self._trainer(job.model)
        options = task.check(dict(self.settings.options))
        config = job_config(options)
        choice = LessonConfig(self.settings.replay, config.validation, config.training.seed)
        since = learnt_until(self.retraining.jobs(), job)
        with training_lock(task.folder):
            if self._steps.outcome(job):
                return task.stats()
            labels = self.log.labels()
            return task(
                options,
                datastore,
                lambda data: select_training_images(data, labels, since, job.upto, choice),
                note_of(job),
            )

    def _carry_out(self, job: Job) -> None:
        try:
            done = self.retraining.carry_out(job, self._steps)
            logger.warning("Retraining %s of %s is %s.", done.id, done.model, done.state)
        except (LostJobError, OSError) as error:
            logger.warning("Retraining %s: %s", job.id, error)
        finally:
            self._thread = None
            self._ended()

    def _run(self, job: Job) -> str:
        """Train in a separate process, and wait for it."""
        trainer = self._trainer(job.model)
        with self._beginning:
            self._check_open()
            if not any(
                t["request"]["model"] == job.model for t in tasks("train") if t["status"] in _UNDER_WAY
            ):
                trainer.announce()
            task = run_background_task({"model": job.model, "job": job.id}, "train")
            # trainings have one thread, whose next turn comes when this one is over, however it ended
            over = background_executors["train"].submit(time.monotonic)
        while not over.done():
            self._closed.wait(_POLL)
        self._check_open()
        if task["status"] == "STOPPED":
            return "It was stopped by hand."
        message = str(trainer.stats().get("message", ""))
        if task["status"] != "DONE":
            task["status"] = "ERROR"  # else it would seem to run for ever
            raise RuntimeError(message or "The process that trained has died.")
        return message

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise LostJobError("The server ends; the next one goes on with it.")


def check_options(options: Mapping[str, str], task: MethodTrainTask) -> None:
    """Refuse options of `--conf retrain_options` that the trainer does not take.

    Raises:
        ValueError: An option is unknown, or a value is not allowed.
    """
    unknown = sorted(set(options) - set(task.config()))
    if unknown:
        raise ValueError(
            f"--conf retrain_options: {task.method.name} knows no {unknown[0]!r}. It takes "
            f"{', '.join(task.config())}."
        )
    task.check(dict(options))


def is_remote(studies: str) -> bool:
    """Whether the studies are in a PACS."""
    return studies.startswith(("http://", "https://"))
