"""Scores an image for all `strategies` at once: each slice is encoded once and decoded many times.

A slice is scored in one turn on the device, so that users' prompts are answered in between; methods that
encode each prompt process a few prompts per turn. A few slices are scored, evenly spaced among those that
show anything, because neighbours resemble each other. The prompts are the boxes of `proposals`, since there
is no user yet. The image's score is the mean of its worst slices, in which all objects count alike. An image
without objects has no score, but an embedding."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from segmed.active.scoring.scorer_config import ScorerConfig
from segmed.active.scoring.slice_probe import SliceProbe, Turn, is_bare
from segmed.active.scoring.uncertainty import bald, predictive_entropy
from segmed.imaging.picture import Picture
from segmed.methods.base.segmenter import Segmenter
from segmed.sam.embedding import Embedding

Embed = Callable[[Picture, Sequence[int]], Embedding]


@dataclass(frozen=True)
class SliceScores:
    """The scores of one slice."""

    scores: Mapping[str, float]
    features: np.ndarray
    encodes: int
    decodes: int


@dataclass(frozen=True)
class ImageScores:
    """The scores of one image.

    Attributes:
        scores: Scores by quantity; those that could not be computed are missing.
        embedding: Descriptor (D,) float32, the mean over the slices.
        slices: Slices that were scored.
        encodes: Upper bound of the encoder passes; slices whose embedding was cached cost none.
        decodes: Number of decoded masks.
        seconds: Total time in seconds, including the wait for the device.
    """

    scores: Mapping[str, float]
    embedding: np.ndarray
    slices: tuple[int, ...]
    encodes: int
    decodes: int
    seconds: float


@dataclass
class Scorer:
    """Scores pictures with one segmenter.

    Args:
        segmenter: Segmenter in evaluation mode.
        config: Thoroughness of the scoring.
        ensemble: Further segmenters, whose disagreement with the first gives `bald` in place of dropout.
        embed: Function that returns embeddings of slices, such as from a cache; None encodes them by the
            segmenter.
        turn: Function that runs work on the device's turn; None runs it at once.
    """

    segmenter: Segmenter
    config: ScorerConfig = field(default_factory=ScorerConfig)
    ensemble: Sequence[Segmenter] = ()
    embed: Embed | None = None
    turn: Turn | None = None

    def score(
        self,
        picture: Picture,
        places: np.ndarray | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> ImageScores | None:
        """Score an image.

        Args:
            picture: Image to score.
            places: Centres (N, 2) of objects of labelled images as shares (x, y) of width and height; None if
                there are none.
            cancelled: Function that is called between slices and returns whether to stop.

        Returns:
            The scores; None if the scoring was cancelled.
        """
        began = time.perf_counter()
        ks = informative_slices(picture, self.config.slices)
        found = []
        for k in ks:
            if cancelled():
                return None

            def work(k: int = k) -> SliceScores:
                return self._slice(picture, k, places)

            found.append(self.turn(work) if self.turn and not is_bare(self.segmenter) else work())
        return ImageScores(
            pool_slices([f.scores for f in found], self.config.worst),
            np.mean([f.features for f in found], axis=0).astype(np.float32),
            tuple(ks),
            sum(f.encodes for f in found),
            sum(f.decodes for f in found),
            time.perf_counter() - began,
        )

    @torch.inference_mode()
    def _slice(self, picture: Picture, k: int, places: np.ndarray | None) -> SliceScores:
        image = picture.slice(k)
        embedding = self.embed(picture, [k]) if self.embed else None
        turn = self.turn if is_bare(self.segmenter) else None
        look = SliceProbe(self.segmenter, image, self.config, embedding, turn)
        features = look.descriptor()
        classes = look.classes() if look.automatic else None
        boxes = look.boxes(places, classes)
        scores = look.score_boxes(boxes, np.random.default_rng([self.config.seed, k])) if boxes else {}
        if classes is not None:
            scores["entropy"] = predictive_entropy(classes)
        if boxes or look.automatic:
            if self.config.augment:
                scores["tta"] = look.augmented(boxes)
            samples = None
            if self.ensemble:
                samples = look.ensemble(boxes, self.ensemble)
            elif self.config.passes and "bald" not in scores:
                samples = look.passes(boxes)
            if samples is not None:
                scores["bald"] = float(np.mean([bald(one) for one in samples]))
        return SliceScores(scores, features, look.encodes, look.decodes)


def informative_slices(picture: Picture, most: int) -> list[int]:
    """Evenly spaced slices among those that show more than one shade; the middle one if none does."""
    depth = picture.shape[2]
    across = tuple(axis for axis in range(picture.array.ndim) if axis != 2)
    spread = picture.array.max(across).astype(int) - picture.array.min(across)
    shown = np.flatnonzero(spread > 0.1 * spread.max()) if spread.max() else np.array([depth // 2])
    count = min(most, len(shown))
    return [int(shown[int((n + 0.5) / count * len(shown))]) for n in range(count)]


def pool_slices(scores: Sequence[Mapping[str, float]], worst: float) -> dict[str, float]:
    """Mean of the highest values of each quantity, over a share of the slices that have it, at least one.

    The maximum alone would reflect the most unusual slice; the mean of all would hide a difficult part of a
    long volume."""
    values: dict[str, list[float]] = defaultdict(list)
    for slice_scores in scores:
        for name, value in slice_scores.items():
            if math.isfinite(value):
                values[name].append(value)
    return {
        name: float(np.mean(sorted(mine, reverse=True)[: max(1, math.ceil(worst * len(mine)))]))
        for name, mine in values.items()
    }
