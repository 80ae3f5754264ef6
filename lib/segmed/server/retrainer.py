"""Continual retraining in the background of the server: one at a time, in a process of its own, over restarts."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.utils.async_tasks.utils import processes, run_background_task, tasks

from segmed.active.continual import LessonConfig, TrainingSteps, alone, learnt_until, lesson, note_of
from segmed.active.labels import LabelLog
from segmed.active.policy import due
from segmed.active.retraining import Job, LostJobError, Retraining
from segmed.server.engine import Engine
from segmed.server.train import MethodTrainTask, job_config

logger = logging.getLogger(__name__)

_POLL = 0.3  # s
_NICE = 10  # users' prompts come first


class Retrainer:
    """Begins retrainings, goes on with those of a server that is gone, and sees them to their end.

    Args:
        engine: settings and registry.
        log: labels.
        trainer: gives the trainer of a model.
        ended: called when one has ended.
    """

    def __init__(
        self, engine: Engine, log: LabelLog, trainer: Callable[[str], MethodTrainTask], ended: Callable[[], None]
    ) -> None:
        self.engine, self.log = engine, log
        self.settings = engine.settings.learning
        self.retraining = Retraining(log.database)
        self._steps = TrainingSteps(engine.registry, self._run)
        self._trainer, self._ended = trainer, ended
        self._thread: threading.Thread | None = None
        self._task: dict[str, Any] = {}
        self._closed = threading.Event()

    def check(self, drift: str = "") -> None:
        """Begin a retraining if it is time, or take one over.

        Args:
            drift: what a measurement said, "" for none.
        """
        if self._closed.is_set() or self.running():
            return
        job = self.retraining.take_over()
        if job is None:
            reason = due(self.settings.policy, self.retraining.situation(drift))
            job = self.retraining.reserve(self.settings.model, reason) if reason else None
        if job is not None:
            logger.warning("Retraining %s of %s begins: %s", job.id, job.model, job.reason)
            self._thread = threading.Thread(target=self._carry_out, args=(job,), daemon=True, name="retraining")
            self._thread.start()

    def running(self) -> bool:
        """Whether a retraining is under way in this server."""
        return self._thread is not None and self._thread.is_alive()

    def close(self) -> None:
        """The server ends: the running process is, too, and the next server goes on with the job."""
        self._closed.set()
        process = processes("train").get(self._task.get("id"))
        if process is not None:
            process.terminate()

    def status(self) -> dict[str, Any]:
        """What clients are told: the retraining under way, or the last one."""
        jobs = self.retraining.jobs()
        if not jobs:
            return {"state": "none yet", "jobs": 0}
        last = jobs[-1]
        facts = {name: getattr(last, name) for name in ("id", "model", "state", "reason", "version", "message")}
        return {**facts, "jobs": len(jobs)}

    def learn(self, number: int, datastore: Datastore) -> dict[str, Any]:
        """Do the training of a job; called in the process that was begun for it.

        Args:
            number: of the job.
            datastore: whose final labels are learnt.

        Returns:
            What the trainer's `stats` tell at the end.

        Raises:
            ValueError: there is nothing to learn from, or an option is wrong.
            LostJobError: the job is not under way any more.
        """
        os.nice(_NICE)
        job = self.retraining.active()
        if job is None or job.id != number:
            raise LostJobError(f"Job {number} is not under way any more.")
        task = self._trainer(job.model)
        options = task.check(dict(self.settings.options))
        config = job_config(options)
        choice = LessonConfig(self.settings.replay, config.validation, config.training.seed)
        since = learnt_until(self.retraining.jobs(), job)
        with alone(task.folder):
            if self._steps.outcome(job):
                return task.stats()
            labels = self.log.labels()
            return task(options, datastore, lambda data: lesson(data, labels, since, job.upto, choice), note_of(job))

    def _carry_out(self, job: Job) -> None:
        try:
            done = self.retraining.carry_out(job, self._steps)
            logger.warning("Retraining %s of %s is %s. %s", done.id, done.model, done.state, done.message)
        except (LostJobError, OSError) as error:
            logger.warning("Retraining %s: %s", job.id, error)
        self._thread = None
        self._ended()

    def _run(self, job: Job) -> str:
        """Have a process train, and wait for it."""
        trainer = self._trainer(job.model)
        if job.model not in (t["request"]["model"] for t in tasks("train") if t["status"] in ("SUBMITTED", "RUNNING")):
            trainer.announce()
        self._task = run_background_task({"model": job.model, "job": job.id}, "train")
        while self._task["status"] in ("SUBMITTED", "RUNNING"):
            self._closed.wait(_POLL)
            if self._closed.is_set():  # the job is left as it is
                threading.Event().wait()
        if self._task["status"] == "STOPPED":
            return "It was stopped by hand."
        message = str(trainer.stats().get("message", ""))
        if self._task["status"] == "ERROR":
            raise RuntimeError(message or "The process that trained has died.")
        return message


def check_options(options: Mapping[str, str], task: MethodTrainTask) -> None:
    """Refuse options of `--conf retrain_options` that the trainer does not take.

    Raises:
        ValueError: an unknown option, or a value that is not allowed.
    """
    unknown = sorted(set(options) - set(task.config()))
    if unknown:
        raise ValueError(
            f"--conf retrain_options: {task.method.name} knows no {unknown[0]!r}. It takes {', '.join(task.config())}."
        )
    task.check(dict(options))


def is_remote(studies: str) -> bool:
    """Whether the studies lie in a PACS."""
    return studies.startswith(("http://", "https://"))


def state_folder(engine: Engine, studies: str) -> Path:
    """Where the state is kept: as `--conf active_folder` says, hidden in the studies, or beside the trained models."""
    if engine.settings.learning.folder:
        return engine.settings.learning.folder
    if is_remote(studies):
        return engine.registry.folder / ".active" / hashlib.sha256(studies.encode()).hexdigest()[:16]
    return Path(studies) / ".segmed"
