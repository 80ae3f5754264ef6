"""Scoring of images in the background, a slice at a time, and the Dice of proposals and saved labels."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.scoring import ScoringMethod

from segmed.active.review.submission import read_submission
from segmed.active.scoring.scorer import Scorer
from segmed.active.scoring.scorer_config import ScorerConfig
from segmed.active.store.state import ActiveState
from segmed.imaging.picture import Picture
from segmed.inference.predictor import Predictor
from segmed.sam.embedding import Embedding
from segmed.server.datastores.studies import FINAL, ORIGINAL, label_map
from segmed.server.decoding import decoder
from segmed.server.engine import Engine
from segmed.server.free_memory import return_free_memory
from segmed.server.learning.throttle import Cancelled, Throttle

logger = logging.getLogger(__name__)

_LOOK_AGAIN = 30.0  # s, for what nobody tells of, such as a version that another process serves now
_RECOVER = 60.0  # s after a full disk or a GPU without memory
_ASK_AGAIN = 600.0  # s after an image could not be had


class Places(NamedTuple):
    """Places of the objects in labelled images.

    Attributes:
        stage: Number that rises when so many more images are labelled that scores should be computed again.
        points: Places (N, 2) as shares (x, y) of width and height, or None.
    """

    stage: int = 0
    points: np.ndarray | None = None


class BackgroundScorer:
    """Keeps the scores of the served model up to date, in a thread of its own.

    Args:
        engine: Engine with the models; scoring does not displace users' pictures and embeddings from its
            caches.
        state: State that lists images without scores, and stores the scores.
        throttle: Throttle that all background work shares.
        file: Function that returns the file of an image.
        fingerprints: Function that returns the fingerprints of the images' files, as given to the state.
        places: Function that returns places where objects may be.
        busy: Function that returns whether a training is under way: it needs the device, and its version will
            outdate the scores.
    """

    def __init__(
        self,
        engine: Engine,
        state: ActiveState,
        throttle: Throttle,
        file: Callable[[str], Path],
        fingerprints: Callable[[], Mapping[str, str]],
        places: Callable[[], Places],
        busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self.engine, self.state, self.throttle = engine, state, throttle
        self.model = engine.settings.learning.model
        self.config = ScorerConfig(augment=engine.settings.learning.strategy == "tta")
        self.version = (
            ""  # version of the scores; for "" the state returns those of the version with most images
        )
        self.scored = 0
        self._last_returned = 0  # number of scored images when memory was returned
        self._absent: dict[str, float] = {}  # images that could not be had, and when
        self._file, self._fingerprints, self._places, self._busy = file, fingerprints, places, busy
        self._wake, self._paused, self._closed = threading.Event(), threading.Event(), threading.Event()

    def start(self) -> None:
        """Begin to score."""
        threading.Thread(target=self._loop, daemon=True, name="scoring").start()

    def wake(self) -> None:
        """Notify the scorer that there may be images to score."""
        self._wake.set()

    def pause(self, paused: bool = True) -> None:
        """Stop after the present slice, or continue."""
        (self._paused.set if paused else self._paused.clear)()
        self._wake.set()

    def close(self) -> None:
        """Stop for good."""
        self._closed.set()
        self._wake.set()

    def status(self) -> dict[str, Any]:
        """The progress as JSON values for clients."""
        return {
            "model": self.model,
            "version": self.version,
            "paused": self._paused.is_set(),
            "scored": self.scored,
            "left": len(self.state.stale(self.version, 10**9)) if self.version else None,
            "seconds": round(self.throttle.spent, 1),
        }

    def step(self) -> bool:
        """Score one image.

        Returns:
            Whether there was an image to score.

        Raises:
            Cancelled: The scoring was stopped meanwhile.
        """
        if (
            self._busy()
            or not self._fingerprints()
            or self.model not in {m.name for m in self.engine.offered()}
        ):
            return False
        predictor, places = self.engine.predictor(self.model), self._places()
        prompted = not predictor.segmenter.labels
        version = f"{predictor.segmenter.version} {places.stage}" if prompted else predictor.segmenter.version
        if version != self.version:
            self.state.table(version)  # so that Next Sample finds it read
            self.version = version
        fingerprints = self._fingerprints()
        self._absent = {i: at for i, at in self._absent.items() if time.monotonic() - at < _ASK_AGAIN}
        stale = self.state.stale(version, 8 + len(self._absent))
        image = next((i for i in stale if i in fingerprints and i not in self._absent), None)
        if image is None:
            self.state.prune(version)
            if self.scored > self._last_returned:
                self._last_returned = self.scored
                return_free_memory()
            return False
        try:
            with self.throttle.piece(self._unwanted):
                try:
                    file = self._file(image)
                except (OSError, ValueError):  # just removed, or a PACS that is down
                    self._absent[image] = time.monotonic()
                    return True
                picture = decoder().picture(file, self.engine.settings.window)
            found = self._scorer(predictor).score(picture, places.points if prompted else None)
            assert found is not None
            self.state.save_scores(
                image,
                version,
                fingerprints[image],
                found.scores,
                found.embedding,
                found.encodes,
                found.decodes,
                found.seconds,
            )
        except (Cancelled, torch.OutOfMemoryError):
            raise
        except Exception as error:  # one image must not keep the others from being scored
            if self._closed.is_set():  # then it is not the image's fault
                raise Cancelled from error
            logger.info("An image cannot be scored: %s", type(error).__name__)
            self.state.save_scores(image, version, fingerprints[image], {})
        self.scored += 1
        return True

    def _scorer(self, predictor: Predictor) -> Scorer:
        segmenter = predictor.segmenter
        device = next(segmenter.parameters(), torch.empty(0)).device

        def embed(picture: Picture, ks: Sequence[int]) -> Embedding:
            kept = self.engine.embeddings.get((segmenter.version, picture.key, ks[0]))
            return segmenter.embed([picture.slice(k) for k in ks]) if kept is None else kept.to(device)

        def turn(work: Callable[[], Any]) -> Any:
            with self.throttle.piece(self._unwanted):
                return predictor.queue.run(work)

        return Scorer(segmenter, self.config, embed=embed, turn=turn)

    def _unwanted(self) -> bool:
        return self._paused.is_set() or self._closed.is_set() or self._busy()

    def _loop(self) -> None:
        while not self._closed.is_set():
            wait = _LOOK_AGAIN
            try:
                if not self._paused.is_set() and self.step():
                    continue
            except Cancelled:
                pass
            except Exception as error:
                logger.warning(
                    "Scoring goes on later: %s", getattr(error, "strerror", None) or type(error).__name__
                )
                wait = _RECOVER
            self._wake.wait(wait)
            self._wake.clear()


class ImageScoring(ScoringMethod):
    """Scores of unlabelled images for Next Sample; this only wakes the scoring in the background."""

    def __init__(self, scorer: BackgroundScorer) -> None:
        super().__init__("How much a label of each image would help, kept up to date in the background")
        self.scorer = scorer

    def __call__(self, request: Any, datastore: Datastore) -> dict[str, Any]:
        self.scorer.pause(False)
        return self.scorer.status()


class LabelDice(ScoringMethod):
    """Dice of original against final labels, by structure, compared by name."""

    def __init__(self, structures: Mapping[str, int]) -> None:
        super().__init__("Dice of original against final labels, by structure")
        self.structures = structures

    def __call__(self, request: Any, datastore: Datastore) -> dict[str, Any]:
        """Read all pairs.

        Returns:
            `images`: Dice by structure of each image that has both labels; `dice`: the mean of each
                structure.
        """
        images: dict[str, Mapping[str, float]] = {}
        for image in datastore.get_labeled_images():
            pair = [
                label_map(datastore, image, tag, self.structures, fetch=False) for tag in (FINAL, ORIGINAL)
            ]
            if pair[0] is None or pair[1] is None:
                continue
            try:
                found = read_submission(pair[0], pair[1])
            except (OSError, ValueError) as error:
                logger.info("A label is left out: %s", type(error).__name__)
                continue
            images[image] = found.agreement or {}
        values: dict[str, list[float]] = defaultdict(list)
        for dice in images.values():
            for name, value in dice.items():
                values[name].append(value)
        return {"images": images, "dice": {name: float(np.mean(found)) for name, found in values.items()}}
