"""Active learning on the server: what happens to images and labels is noted, and what follows is done behind it.

One thread looks at the studies, notes labels, has the model bear witness on them and begins retrainings; another one
scores images. A request does no more than a transaction.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from monailabel.interfaces.datastore import Datastore

from segmed.active.database import Database
from segmed.active.drift import embedding_drift, score_drift
from segmed.active.labels import LabelLog
from segmed.active.policy import RetrainConfig
from segmed.active.state import ActiveState, Proposal
from segmed.server.engine import Engine
from segmed.server.label_desk import LabelDesk
from segmed.server.requests import BadRequest
from segmed.server.retrainer import Retrainer, is_remote, state_folder
from segmed.server.scoring import BackgroundScorer
from segmed.server.studies import Studies
from segmed.server.throttle import Throttle
from segmed.server.train import MethodTrainTask

logger = logging.getLogger(__name__)

_POLL = 2.0  # s between two looks at whether the studies have changed
_THOROUGH = 60.0  # s between two looks at everything else
_DRIFT_EVERY = 600.0  # s
_TRUST = ("predicted_iou", "entropy")


class ActiveLearning:
    """Knows images, users and labels.

    Args:
        engine: models.
        studies: folder or DICOMweb URL.
        store: gives the datastore, once there is one.
        trainer: gives the trainer of a model, likewise.

    Raises:
        OSError: the state cannot be kept where it should.
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
        database = Database(state_folder(engine, studies))
        self.state = ActiveState(database, self.settings.lease)
        self.log = LabelLog(database, self.settings.lease)
        self.throttle = Throttle()
        self._wake, self._closed = threading.Event(), threading.Event()
        self.desk = LabelDesk(engine, self.studies, self.log, self.throttle, self._closed.is_set)
        self.retrainer = Retrainer(engine, self.log, trainer, self._wake_all)
        self.scorer = BackgroundScorer(
            engine,
            self.state,
            self.throttle,
            self.studies.file,
            lambda: self._marks,
            lambda: self.desk.places,
            self.retrainer.running,
        )
        self.drift = ""
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
        """Reserve the next images for a user, see `ActiveState.propose`."""
        if not self._marks:
            self.observe()
        found = self.state.propose(strategy, user, count, self.scorer.version, keep)
        if len(found) == 1:
            self.worked(found[0].image, user)
        return found

    def skip(self, image: str, user: str, forever: bool) -> None:
        """Give an image back.

        Raises:
            BadRequest: (404) there is no such image.
        """
        if image not in self._marks:
            raise BadRequest(f"There is no image {image[:60]!r} in the studies.", 404)
        self.state.skip(image, user, forever)

    def worked(self, image: str, user: str, prompts: int = 0) -> None:
        """Note that a user opened an image, or had a prompt answered; the request does not wait for it."""
        if not self._closed.is_set():
            self._later.submit(self._note, image, user, prompts)

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
            logger.warning("%s", error)
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
            found = self.studies.look(self._marks, self._labelled)
            if found is None:
                return
            self.state.observe(found.images, found.labelled)
            if self.studies.folder:
                for image in {r.image for r in self.log.labels() if r.state != "deleted"} - found.labelled:
                    self.log.delete(image)
            self._marks, self._labelled, self._changes = found.images, found.labelled, changes

    def status(self) -> dict[str, Any]:
        """What clients are told."""
        return {
            "images": len(self._marks),
            "labelled": len(self._labelled),
            "reserved": len(self.state.reserved()),
            "held": len(self.log.labels("held")),
            "scoring": self.scorer.status(),
            "retraining": self.retrainer.status(),
            "drift": self.drift,
        }

    def tick(self) -> None:
        """Everything that follows from labels: notes, witnesses, places of objects, retraining."""
        recorded = {r.image for r in self.log.labels() if r.state != "deleted"}
        for image in sorted((self._labelled - recorded) | self._pending.keys()):
            user = self._pending.pop(image, None)
            try:
                self.desk.record(image, self.studies.submitter(image) if user is None else user)
            except OSError:
                if user is not None:
                    self._pending.setdefault(image, user)
                raise
        self.desk.read_places()
        if self._watches:
            self.desk.examine()
        self._measure_drift()
        self.retrainer.check(self.drift)

    def _note(self, image: str, user: str, prompts: int) -> None:
        try:
            self.log.work(image, user, prompts)
        except OSError as error:
            logger.warning("%s", error)

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
        late = np.array([self.studies.arrived(image) > ended[-1] for image in images], bool)
        found = [embedding_drift(embeddings[~late], embeddings[late])]
        found += [score_drift(scores[name][~late], scores[name][late]) for name in _TRUST if name in scores]
        self.drift = " ".join(drift.message for drift in found if drift.message)

    def _wake_all(self) -> None:
        self.changed()
        self.scorer.wake()

    def _loop(self) -> None:
        looked, begun, woken = -math.inf, False, True
        while not self._closed.is_set():
            try:
                late = time.monotonic() - looked >= _THOROUGH  # files may have been written over
                if woken or late or self._changes != self.studies.changes():
                    looked = time.monotonic()
                    self.observe()
                    self.tick()
                    self.scorer.wake()
                    if not begun and self._scores:
                        self.scorer.start()  # not before it is known where objects are
                    begun = True
            except Exception as error:
                logger.warning("Active learning goes on later: %s", error, exc_info=error)
            woken = self._wake.wait(_POLL)
            self._wake.clear()
