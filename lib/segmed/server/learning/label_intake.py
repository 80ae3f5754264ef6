"""Background work on submitted labels: recording, places of objects, and the model agreement."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import numpy as np
import torch

from segmed.active.review.model_agreement import followed
from segmed.active.review.submission import Submission, object_places, read_submission, whole_labels
from segmed.active.store.labels import LabelLog, LabelRecord
from segmed.data.checksums import file_checksum
from segmed.imaging.grid import read_grid, read_labels
from segmed.inference.predictor import Predictor
from segmed.server.datastores.studies import ORIGINAL, Studies
from segmed.server.engine import Engine
from segmed.server.learning.scoring import Places
from segmed.server.learning.throttle import Cancelled, Throttle

logger = logging.getLogger(__name__)

_USERS_FIRST = 5.0  # s, at most: labels are to be examined before they are learnt
_PLACES = 30  # newest labels whose objects give the places


class LabelIntake:
    """Reads submitted labels in the background.

    Args:
        engine: Engine with the model to compare labels with.
        studies: Studies that hold the labels.
        log: Log of the labels.
        throttle: Throttle that all background work shares.
        closed: Function that returns whether to stop.

    Attributes:
        places: Places of the objects in the newest labels.
    """

    def __init__(
        self, engine: Engine, studies: Studies, log: LabelLog, throttle: Throttle, closed: Callable[[], bool]
    ) -> None:
        self.engine, self.studies, self.log, self.throttle = engine, studies, log, throttle
        self.model = engine.settings.learning.model
        self.places = Places()
        self._closed = closed
        self._points: dict[int, np.ndarray] = {}  # by id of the label
        self._asked: set[tuple[int, str]] = set()

    def record(self, image: str, user: str) -> None:
        """Record a final label that was saved.

        Raises:
            OSError: The label could not be recorded.
        """
        try:
            final = self.studies.label_map(image)
            if final is None:
                return
            effort = self.studies.effort(image)
            try:
                submission = read_submission(final, self.studies.label_map(image, ORIGINAL))
            except ValueError:
                logger.warning("A label cannot be read; it is noted as an empty one.")
                submission = Submission(file_checksum(final.file), {}, None)
        except (
            OSError
        ) as error:  # missing or unreadable now; the next update of the studies finds it if it exists
            logger.info("A label is noted later: %s", error.strerror)
            return
        self.log.record(image, user, submission.checksum, submission.sizes, submission.agreement, effort)

    def read_places(self) -> None:
        """Bring `places` up to date."""
        usable = self.log.usable()
        newest = {record.id: record for record in usable[-_PLACES:]}
        for number in newest.keys() - self._points.keys():
            labels = self._labels_of(newest[number])
            self._points[number] = np.zeros((0, 2)) if labels is None else object_places(labels)
        self._points = {number: self._points[number] for number in newest}
        points = np.concatenate([np.zeros((0, 2)), *self._points.values()])
        # with 1, 10, 100, … labels it is known so much better where to look that scores are computed again
        stage = max(self.places.stage, len(str(len(usable)))) if len(points) else self.places.stage
        self.places = Places(stage, points if len(points) else None)

    def examine(self) -> bool:
        """Compare the oldest label that was not compared with the served version yet.

        Returns:
            Whether there was such a label.
        """
        predictor = self._predictor() if self.log.usable() else None
        if predictor is None:
            return False
        version = predictor.segmenter.version
        self._asked = {asked for asked in self._asked if asked[1] == version}
        record = next((r for r in self.log.unexamined(version) if (r.id, version) not in self._asked), None)
        if record is None:
            return False
        try:
            dice = self._agreement(predictor, record)
        except Cancelled:
            return False
        except (OSError, ValueError, torch.OutOfMemoryError) as error:
            logger.info("Label %s cannot be compared: %s", record.id, type(error).__name__)
            dice = math.nan
        if reason := self.log.examine(record.id, {**self.log.model_agreements(record.id), version: dice}):
            logger.warning("Label %s is held for review. %s", record.id, reason)
        self._asked.add((record.id, version))  # an empty label leaves no trace in the log
        return True

    def _labels_of(self, record: LabelRecord) -> np.ndarray | None:
        """The label map (I, J, K) on the grid of the image; None if it cannot be read or was replaced."""
        final = self.studies.label_map(record.image)
        try:
            if final is None or file_checksum(final.file) != record.checksum:
                return None
            return whole_labels(read_labels(final.file, read_grid(self.studies.file(record.image))))
        except (OSError, ValueError) as error:
            logger.info("Label %s cannot be looked at: %s", record.id, type(error).__name__)
            return None

    def _agreement(self, predictor: Predictor, record: LabelRecord) -> float:
        labels = self._labels_of(record)
        if labels is None:
            return math.nan
        picture = self.engine.picture(self.studies.file(record.image))
        return followed(
            predictor, picture, labels, turn=lambda: self.throttle.piece(self._closed, _USERS_FIRST)
        )

    def _predictor(self) -> Predictor | None:
        if self.model not in {method.name for method in self.engine.offered()}:
            return None
        try:
            return self.engine.predictor(self.model)
        except (OSError, ValueError, torch.OutOfMemoryError) as error:
            logger.warning("Labels cannot be compared with %s: %s", self.model, error)
            return None
