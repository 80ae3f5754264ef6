"""Active learning on the server: what happens to images and labels is noted, and what follows is done behind it.

One thread looks at the studies, notes labels, has the model bear witness on them and begins retrainings; another one
scores images. A request does no more than a transaction.
"""

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

from segmed.active.database import Database
from segmed.active.drift import embedding_drift, score_drift
from segmed.active.labels import LabelLog, LabelRecord
from segmed.active.policy import RetrainConfig
from segmed.active.state import ActiveState, Proposal
from segmed.server.engine import Engine
from segmed.server.errors import BadRequest
from segmed.server.label_desk import LabelIntake
from segmed.server.learning_numbers import labelling_numbers
from segmed.server.retrainer import Retrainer, is_remote
from segmed.server.scoring import BackgroundScorer
from segmed.server.studies import Studies, state_folder
from segmed.server.throttle import Throttle
from segmed.server.train import MethodTrainTask

logger = logging.getLogger(__name__)

_POLL = 2.0  # s between two looks at whether the studies have changed
_THOROUGH = 60.0  # s between two looks at everything else
_RECOVER = 20.0  # s after something went wrong
_DRIFT_EVERY = 600.0  # s
_TRUST = ("predicted_iou", "entropy")


class ActiveLearning:
    """Knows images, users and labels. Nothing goes on in the background before `start`.

    Args:
        engine: models.
        studies: folder or DICOMweb URL.
        store: gives the datastore.
        trainer: gives the trainer of a model.

    Attributes:
        drift: how the images of late differ from those of the last training, "" if they do not.
        problem: what keeps the background work from going on, "" if nothing does.

    Raises:
        OSError: the state cannot be kept where it should.
        ValueError: there is no such place.
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
            lambda: self._marks,
            lambda: self.intake.places,
            self.retrainer.running,
        )
        self.drift = self.problem = ""
        self._drift_due = 0.0
        wanted = self.settings.scoring
        self._scores = wanted == "on" or (wanted == "auto" and not is_remote(studies))
        self._watches = self._scores or self.settings.policy != RetrainConfig(0)
        self._marks: Mapping[str, str] = {}
        self._labelled: frozenset[str] = frozenset()
        self._pending: dict[str, str] = {}
        self._changes: object = None
        self._observing = threading.Lock()
        self._later = ThreadPoolExecutor(1, "notes")

    def start(self) -> None:
        """Begin what goes on in the background."""
        threading.Thread(target=self._loop, daemon=True, name="learning").start()

    def close(self) -> None:
        """End it; what is under way is gone on with at the next start."""
        self._closed.set()
        self._wake.set()
        self.scorer.close()
        self.retrainer.close()
        self._later.shutdown(wait=False)

    def next(self, strategy: str, user: str, count: int, keep: bool) -> list[Proposal]:
        """Reserve the next images for a user, see `ActiveState.propose`.

        Raises:
            BadRequest: (507) it cannot be noted.
        """
        with _noted():
            if not self._marks:
                self.observe()
            found = self.state.propose(strategy, user, count, self.scorer.version, keep)
        if len(found) == 1:
            self.record_activity(found[0].image, user)
        return found

    def skip(self, image: str, user: str, forever: bool) -> None:
        """Give an image back.

        Raises:
            BadRequest: (404) there is no such image; (507) it cannot be noted.
        """
        if image not in self._marks:
            raise BadRequest(f"There is no image {image[:60]!r} in the studies.", 404)
        with _noted():
            self.state.skip(image, user, forever)

    def review(self, label: int, keep: bool, reviewer: str) -> LabelRecord:
        """Decide on a label that is held, see `LabelLog.review`.

        Raises:
            BadRequest: (507) it cannot be noted.
            ValueError: there is nothing to decide.
        """
        with _noted():
            record = self.log.review(label, keep, reviewer)
        self.changed()
        return record

    def record_activity(self, image: str, user: str, prompts: int = 0, model: str = "") -> None:
        """Note that a user opened an image, or had a prompt answered; the request does not wait for it."""
        if not self._closed.is_set():
            self._later.submit(self._note, image, user, prompts, model)

    def submitted(self, image: str, user: str) -> None:
        """Note that a final label was saved; its image is proposed to nobody from now on."""
        self._pending[image] = user
        try:
            if image not in self._marks:
                self.observe()
            with self._observing:  # a look at the whole folder would keep the user waiting
                self._labelled |= {image}
                self.state.observe(self._marks, self._labelled)
        except OSError as error:  # the label is saved; the next look at the studies finds it
            logger.warning("A label is noted later: %s", error.strerror)
        self.changed()

    def changed(self) -> None:
        """The studies have changed, or something else is to be looked at."""
        self._wake.set()

    def observe(self) -> None:
        """Look at the studies.

        Raises:
            OSError: what is there could not be noted.
        """
        with self._observing:
            changes = self.studies.changes()
            recorded = self._recorded()
            found = self.studies.look(self._marks, self._labelled | recorded)
            if found is None:
                return
            self.state.observe(found.images, found.labelled)
            for image in recorded - found.labelled:
                self.log.delete(image)
            self._marks, self._labelled, self._changes = found.images, found.labelled, changes

    def status(self) -> dict[str, Any]:
        """What is known, in numbers."""
        return {
            "strategy": self.settings.strategy,
            "images": len(self._marks),
            "labelled": len(self._labelled),
            "reserved": len(self.state.reserved()),
            **labelling_numbers(self.log),
            "scoring": self.scorer.status(),
            "retraining": self.retrainer.status(),
            "drift": self.drift,
            "problem": self.problem,
        }

    def tick(self) -> None:
        """What follows from labels: notes, places of objects, a witness, and a retraining once all have been heard."""
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
            self.changed()  # one witness at a time, so that the studies are looked at in between
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
        """Compare images that came after the last training with those before, now and then."""
        now = time.monotonic()
        if now < self._drift_due:
            return
        self._drift_due = now + _DRIFT_EVERY
        ended = [job.created for job in self.retrainer.retraining.jobs() if job.state in ("promoted", "rejected")]
        images, scores, embeddings = self.state.table(self.scorer.version)
        if not ended or embeddings is None:
            return
        arrived = self.state.arrived()
        late = np.array([arrived.get(image, 0.0) > ended[-1] for image in images], bool)
        found = [embedding_drift(embeddings[~late], embeddings[late])]
        found += [score_drift(scores[name][~late], scores[name][late]) for name in _TRUST if name in scores]
        drift = " ".join(drift.message for drift in found if drift.message)
        if drift and not self.drift:
            logger.warning("%s", drift)
        self.drift = drift

    def _trained(self) -> None:
        """A retraining has ended: drift counts from it, and other scores are due."""
        self.drift, self._drift_due = "", 0.0
        self.changed()
        self.scorer.wake()

    def _loop(self) -> None:
        looked, begun, woken = -math.inf, False, True
        while not self._closed.is_set():
            wait = _POLL
            try:
                late = time.monotonic() - looked >= _THOROUGH  # files may have been written over
                if woken or late or self._changes != self.studies.changes():
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
    """A client learns why something could not be noted, such as of a full disk."""
    try:
        yield
    except OSError as error:
        raise BadRequest(f"{error.strerror or error}.", 507) from error
