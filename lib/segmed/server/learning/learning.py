"""Active learning on the server: records of images and labels, and the work in the background.

One thread watches the studies, records labels, compares them with the model and begins retrainings; another
one scores images. A request only runs a transaction."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
from monailabel.interfaces.datastore import Datastore
from monailabel.utils.async_tasks.utils import processes

from segmed.active.drift import embedding_drift, score_drift
from segmed.active.policy import RetrainConfig
from segmed.active.store.database import Database
from segmed.active.store.labels import LabelLog, LabelRecord
from segmed.active.store.state import ActiveState, Proposal
from segmed.inference.device_use import answering
from segmed.server.datastores.studies import Studies, state_folder
from segmed.server.engine import Engine
from segmed.server.free_memory import return_free_memory
from segmed.server.http.errors import BadRequest
from segmed.server.learning.label_intake import LabelIntake
from segmed.server.learning.learning_numbers import labelling_numbers
from segmed.server.learning.retrainer import Retrainer, is_remote
from segmed.server.learning.scoring import BackgroundScorer
from segmed.server.learning.throttle import Throttle
from segmed.server.tasks.train import MethodTrainTask

logger = logging.getLogger(__name__)

_POLL = 2.0  # s between two looks at whether the studies have changed
_THOROUGH = 60.0  # s between two looks at everything else
_RECOVER = 20.0  # s after something went wrong
_DRIFT_EVERY = 600.0  # s
_TRUST = ("predicted_iou", "entropy")


class ActiveLearning:
    """Active learning with its images, users and labels. Background work begins with `start`.

    Args:
        engine: Engine with the models.
        studies: Folder or DICOMweb URL.
        store: Function that returns the datastore.
        trainer: Function that returns the trainer of a model.

    Attributes:
        drift: Description of the drift of recent images from those of the last training; "" if there is none.
        problem: What prevents the background work; "" if nothing does.

    Raises:
        OSError: The database cannot be kept in its folder.
        ValueError: The folder of the database does not exist.
    """

    def __init__(
        self,
        engine: Engine,
        studies: str,
        store: Callable[[], Datastore],
        trainer: Callable[[str], MethodTrainTask],
    ) -> None:
        self.engine = engine
        self.settings = engine.settings.learning
        self.studies = Studies(store, engine.settings.structures)
        database = Database(state_folder(store(), self.settings.folder))
        self.state = ActiveState(database, self.settings.lease)
        self.log = LabelLog(database, self.settings.lease)
        self.throttle = Throttle()
        self._wake, self._closed = threading.Event(), threading.Event()
        self.intake = LabelIntake(engine, self.studies, self.log, self.throttle, self._closed.is_set)
        self.retrainer = Retrainer(engine, self.log, trainer, self._trained)
        self.scorer = BackgroundScorer(
            engine,
            self.state,
            self.throttle,
            self.studies.file,
            lambda: self._fingerprints,
            lambda: self.intake.places,
            lambda: self.retrainer.running() or bool(processes("train")),
        )
        self.drift = self.problem = ""
        self._drift_due = 0.0
        wanted = self.settings.scoring
        self._scores = wanted == "on" or (wanted == "auto" and not is_remote(studies))
        self._watches = self._scores or self.settings.policy != RetrainConfig(0)
        self._fingerprints: Mapping[str, str] = {}
        self._labelled: frozenset[str] = frozenset()
        self._pending: dict[str, str] = {}
        self._changes: object = None
        self._observing = threading.Lock()
        self._later = ThreadPoolExecutor(1, "notes")

    def start(self) -> None:
        """Begin the background work."""
        threading.Thread(target=self._loop, daemon=True, name="learning").start()

    def close(self) -> None:
        """End the background work; unfinished work continues at the next start."""
        self._closed.set()
        self._wake.set()
        self.scorer.close()
        self.retrainer.close()
        self._later.shutdown(wait=False)

    def next(self, strategy: str, user: str, count: int, keep: bool, but: str = "") -> list[Proposal]:
        """Reserve the next images for a user, see `ActiveState.propose`; the image `but` is none of them.

        Raises:
            BadRequest: (507) The disk cannot be written.
        """
        with _noted():
            if not self._fingerprints:
                self.observe()
            proposals = self.state.propose(strategy, user, count, self.scorer.version, keep, but=but)
        if len(proposals) == 1:
            self.record_activity(proposals[0].image, user)
        return proposals

    def skip(self, image: str, user: str, forever: bool) -> None:
        """Release an image without labelling it.

        Raises:
            BadRequest: (404) There is no such image; (507) the disk cannot be written.
        """
        if image not in self._fingerprints:
            raise BadRequest(f"There is no image {image[:60]!r} in the studies.", 404)
        with _noted():
            self.state.skip(image, user, forever)

    def review(self, label: int, keep: bool, reviewer: str) -> LabelRecord:
        """Decide on a label that is held, see `LabelLog.review`.

        Raises:
            BadRequest: (507) The disk cannot be written.
            ValueError: There is no such label to review.
        """
        with _noted():
            record = self.log.review(label, keep, reviewer)
        self.changed()
        return record

    @contextmanager
    def user_request(self) -> Iterator[None]:
        """While a user waits for an answer, work in the background and batch runs stand still."""
        with answering(self.engine.registry.folder), self.throttle.request():
            yield

    def record_activity(self, image: str, user: str, prompts: int = 0, model: str = "") -> None:
        """Record that a user opened an image or got a prompt answered; the request does not wait."""
        if not self._closed.is_set():
            self._later.submit(self._note, image, user, prompts, model)

    def submitted(self, image: str, user: str) -> None:
        """Record that a final label was saved; its image is not proposed any more."""
        self._pending[image] = user
        try:
            if image not in self._fingerprints:
                self.observe()
            with self._observing:  # a look at the whole folder would keep the user waiting
                self._labelled |= {image}
                self.state.observe(self._fingerprints, self._labelled)
        except OSError as error:  # the label is saved; the next look at the studies finds it
            logger.warning("A label is noted later: %s", error.strerror)
        self.changed()

    def changed(self) -> None:
        """Wake the background work, because the studies or other facts have changed."""
        self._wake.set()

    def observe(self) -> None:
        """Update the state from the studies.

        Raises:
            OSError: The state could not be written.
        """
        with self._observing:
            changes = self.studies.changes()
            recorded = self._recorded()
            snapshot = self.studies.look(self._fingerprints, self._labelled | recorded)
            if snapshot is None:
                return
            self.state.observe(snapshot.images, snapshot.labelled)
            for image in recorded - snapshot.labelled:
                self.log.delete(image)
            self._fingerprints, self._labelled, self._changes = snapshot.images, snapshot.labelled, changes

    def status(self) -> dict[str, Any]:
        """The state of active learning in numbers."""
        return {
            "strategy": self.settings.strategy,
            "images": len(self._fingerprints),
            "labelled": len(self._labelled),
            "reserved": len(self.state.reserved()),
            **labelling_numbers(self.log),
            "scoring": self.scorer.status(),
            "retraining": self.retrainer.status(),
            "drift": self.drift,
            "problem": self.problem,
        }

    def tick(self) -> None:
        """One step of the work on labels: records, places, a model agreement, and at the end a retraining."""
        for image in sorted((self._labelled - self._recorded()) | set(list(self._pending))):
            user = self._pending.pop(image, None)
            try:
                self.intake.record(image, self.studies.submitter(image) if user is None else user)
            except OSError:
                if user is not None:
                    self._pending.setdefault(image, user)
                raise
        self.intake.read_places()
        more = self._watches and self.intake.examine()
        self._measure_drift()
        if more:
            self.changed()  # one label at a time, so that the studies are updated in between
        else:
            self.retrainer.check(self.drift)

    def _recorded(self) -> set[str]:
        return {record.image for record in self.log.labels() if record.state != "deleted"}

    def _note(self, image: str, user: str, prompts: int, model: str) -> None:
        try:
            self.log.work(image, user, prompts, model)
        except OSError as error:
            logger.warning("Work on an image is not noted: %s", error.strerror)

    def _measure_drift(self) -> None:
        """Compare images that arrived after the last training with those before, at intervals."""
        now = time.monotonic()
        if now < self._drift_due:
            return
        self._drift_due = now + _DRIFT_EVERY
        ended = [
            job.created for job in self.retrainer.retraining.jobs() if job.state in ("promoted", "rejected")
        ]
        images, scores, embeddings = self.state.table(self.scorer.version)
        if not ended or embeddings is None:
            return
        arrived = self.state.arrived()
        recent = np.array([arrived.get(image, 0.0) > ended[-1] for image in images], bool)
        measured = [embedding_drift(embeddings[~recent], embeddings[recent])]
        measured += [
            score_drift(scores[name][~recent], scores[name][recent]) for name in _TRUST if name in scores
        ]
        drift = " ".join(drift.message for drift in measured if drift.message)
        if drift and not self.drift:
            logger.warning("%s", drift)
        self.drift = drift

    def _trained(self) -> None:
        """Handle the end of a retraining: drift is measured from it, and new scores are needed."""
        self.drift, self._drift_due = "", 0.0
        return_free_memory()
        self.changed()
        self.scorer.wake()

    def _loop(self) -> None:
        looked, begun, woken = -math.inf, False, True
        while not self._closed.is_set():
            wait = _POLL
            try:
                recent = time.monotonic() - looked >= _THOROUGH  # files may have been written over
                if woken or recent or self._changes != self.studies.changes():
                    looked = time.monotonic()
                    self.observe()
                    self.state.table(self.scorer.version)  # so that Next Sample finds it read
                    self.tick()
                    self.scorer.wake()
                    if not begun and self._scores:
                        self.scorer.start()  # not before it is known where objects are
                    begun, self.problem = True, ""
            except Exception as error:
                problem = str(getattr(error, "strerror", None) or error)
                if problem != self.problem:  # said once
                    expected = isinstance(error, OSError | BadRequest)
                    logger.warning("Active learning goes on later: %s", problem, exc_info=not expected)
                self.problem, looked, wait = problem, -math.inf, _RECOVER
            woken = self._wake.wait(wait)
            self._wake.clear()


@contextmanager
def _noted() -> Iterator[None]:
    """Tell the client why something could not be recorded, for instance because the disk is full."""
    try:
        yield
    except OSError as error:
        raise BadRequest(f"{error.strerror or error}.", 507) from error
