"""All quantities of `strategies` of one image in one go: each slice is encoded once and decoded many times.

A slice is looked at in one turn on the device, so that users' prompts come in between; by methods that encode each
prompt, a few prompts are. Which slices: a few, evenly spaced among those that show anything, because neighbours
resemble each other. What is asked for: the boxes of `proposals`, since there is no user yet. The image's score is the
mean of its worst slices; objects of a slice count alike. An image in which nothing can be found has no score, but an
embedding.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from segmed.active.descriptor import picture_features, pooled_features
from segmed.active.look import SliceProbe, Turn, is_bare
from segmed.active.scorer_config import ScorerConfig
from segmed.active.uncertainty import bald, predictive_entropy
from segmed.imaging.picture import Picture
from segmed.methods.segmenter import Segmenter
from segmed.sam.embedding import Embedding

Embed = Callable[[Picture, Sequence[int]], Embedding]


@dataclass(frozen=True)
class SliceScores:
    """What one slice gave."""

    scores: Mapping[str, float]
    features: np.ndarray
    encodes: int
    decodes: int


@dataclass(frozen=True)
class ImageScores:
    """What one image gave.

    Attributes:
        scores: by quantity; those that could not be had are missing.
        embedding: (D,) float32, the mean over the slices.
        slices: that were looked at.
        encodes: at most; slices whose embedding was cached cost none.
        decodes: masks that were made.
        seconds: all in all, waiting for the device among them.
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
        segmenter: in evaluation mode.
        config: how thoroughly.
        ensemble: further segmenters, whose disagreement with the first counts as `bald` in place of dropout.
        embed: gives embeddings of slices, such as a cache's; the segmenter encodes if it is None.
        turn: has work done on the device's turn; at once if it is None.
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
        """Look at an image.

        Args:
            picture: the image.
            places: (N, 2) middles of objects of labelled images as shares (x, y) of width and height, if there are any.
            cancelled: asked between slices.

        Returns:
            None if it was cancelled.
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
        features = picture_features(image) if look.bare else pooled_features(look.embedding)
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
    """The mean of the largest share of each quantity over the slices that have it, at least of one.

    The largest alone would be that of the strangest slice; the mean of all would hide a hard part of a long volume.
    """
    values: dict[str, list[float]] = defaultdict(list)
    for slice_scores in scores:
        for name, value in slice_scores.items():
            if math.isfinite(value):
                values[name].append(value)
    return {
        name: float(np.mean(sorted(mine, reverse=True)[: max(1, math.ceil(worst * len(mine)))]))
        for name, mine in values.items()
    }
