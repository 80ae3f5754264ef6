"""Scores one slice with one segmenter: the prompts, the uncertainty of the masks, and the cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from segmed.active.scoring.descriptor import picture_features, pooled_features
from segmed.active.scoring.proposals import (
    Corners,
    box_of,
    class_objects,
    click_prompts,
    distinct_objects,
    region_objects,
)
from segmed.active.scoring.scorer_config import ScorerConfig
from segmed.active.scoring.uncertainty import (
    bald_of_variance,
    predicted_error,
    predictive_entropy,
    prompt_disagreement,
    vote_entropy,
)
from segmed.imaging.prompts import SlicePrompt
from segmed.methods.base.segmenter import Logits, Segmenter
from segmed.sam.embedding import Embedding
from segmed.simulation.slice_annotator import jittered

Turn = Callable[[Callable[[], Any]], Any]
_AT_ONCE = 4  # prompts that are encoded together; a user's request waits for this many


class SliceProbe:
    """A slice with its embedding and the cost of scoring it.

    Attributes:
        bare: Whether the method's embedding is the slice itself, without features.
        automatic: Whether the method labels slices without a prompt.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        image: np.ndarray,
        config: ScorerConfig,
        embedding: Embedding | None = None,
        turn: Turn | None = None,
    ) -> None:
        self.segmenter, self.image, self.config = segmenter, image, config
        self._turn, self._inside = turn, False
        self.embedding = segmenter.embed([image]) if embedding is None else embedding
        self.bare = is_bare(segmenter)
        self.automatic = bool(segmenter.labels)
        self.encodes, self.decodes = 1, 0
        scale = min(1.0, config.resolution / max(image.shape[:2]))
        self.size = max(1, round(image.shape[0] * scale)), max(1, round(image.shape[1] * scale))

    def descriptor(self) -> np.ndarray:
        """Vector by which images are compared: pooled features of the model, or grey values."""
        if not self.bare:
            return pooled_features(self.embedding)
        if not self.segmenter.describes_slices:
            return picture_features(self.image)
        found: torch.Tensor | None = self._at_turn(lambda: self.segmenter.described_features(self.embedding))
        return picture_features(self.image) if found is None else pooled_features(self.embedding, found)

    def decode(self, prompts: Sequence[SlicePrompt]) -> Logits:
        """Masks (1, K, h, w)."""
        self.decodes += len(prompts)
        # a method that labels by itself runs its network once per call, and cuts all boxes from the result
        step = _AT_ONCE if self.bare and not self.automatic else len(prompts)

        def some(first: int) -> Logits:
            return self.segmenter.decode(self.embedding, [list(prompts[first : first + step])], self.size)

        parts: list[Logits] = [self._at_turn(partial(some, n)) for n in range(0, len(prompts), step)]
        masks = torch.cat([part.masks for part in parts], 1)
        return Logits(
            masks, _joined([part.quality for part in parts]), _joined([part.uncertainty for part in parts])
        )

    def classes(self) -> np.ndarray:
        """Probabilities (C, h, w)."""
        self.decodes += 1
        logits: Logits = self._at_turn(lambda: self.segmenter.decode(self.embedding, None, self.size))
        return logits.masks[0].float().softmax(0).cpu().numpy()

    def boxes(self, places: np.ndarray | None, classes: np.ndarray | None) -> list[Corners]:
        """The boxes to prompt the segmenter with.

        Args:
            places: Places (N, 2) where objects may be, as shares of width and height, or None.
            classes: Probabilities (C, h, w) of an automatic method, else None.
        """
        shape = self.image.shape[0], self.image.shape[1]
        if classes is not None:
            objects = class_objects(classes.argmax(0), self.config.objects)
        elif self.bare and (places is None or not len(places)):
            grey = self.image.mean(2) if self.image.ndim == 3 else self.image
            step = max(1, max(shape) // self.config.resolution)
            objects = region_objects(grey[::step, ::step], self.config.objects)
        else:
            logits = self.decode(click_prompts(shape, 2 if self.bare else self.config.grid, places))
            masks = (logits.masks[0] > 0).cpu().numpy()
            quality = (
                np.ones(len(masks)) if logits.quality is None else logits.quality[0].float().cpu().numpy()
            )
            objects = distinct_objects(masks, quality, self.config.objects)
            if not objects and places is not None and len(places):  # no object at the given places
                return self.boxes(None, None)
        return [box_of(mask, shape) for mask in objects]

    def score_boxes(self, boxes: Sequence[Corners], generator: np.random.Generator) -> dict[str, float]:
        """Scores from each box and its jittered copies, decoded together."""
        shape = self.image.shape[0], self.image.shape[1]
        variants = [
            [b, *(jittered(b, self.config.jitter, shape, generator) for _ in range(self.config.jitters))]
            for b in boxes
        ]
        logits = self.decode([SlicePrompt(box=box) for row in variants for box in row])
        each = 1 + self.config.jitters
        # masks (O, P, h, w) of O boxes in P variants each, of which the first is the box itself
        masks = (logits.masks[0] > 0).cpu().numpy().reshape(len(boxes), each, *self.size)
        probability = logits.masks[0, ::each].float().sigmoid().cpu().numpy()
        scores = {
            "jitter": float(np.mean([prompt_disagreement(m) for m in masks])),
            "entropy": float(np.mean([predictive_entropy(p) for p in probability])),
        }
        if logits.quality is not None:
            quality = logits.quality[0, ::each].float().cpu().numpy()
            scores["predicted_iou"] = float(np.mean([predicted_error(float(q)) for q in quality]))
        if logits.uncertainty is not None:
            variance = logits.uncertainty[0, ::each].float().cpu().numpy()
            pairs = zip(probability, variance, strict=True)
            scores["bald"] = float(np.mean([bald_of_variance(p, v) for p, v in pairs]))
        return scores

    def probabilities(self, boxes: Sequence[Corners]) -> np.ndarray:
        """Probabilities (O, h, w) of the boxes' objects, or (1, C, h, w) of an automatic method's classes."""
        if self.automatic:
            return self.classes()[None]
        logits = self.decode([SlicePrompt(box=box) for box in boxes])
        return logits.masks[0].float().sigmoid().cpu().numpy()

    def ensemble(self, boxes: Sequence[Corners], members: Sequence[Segmenter]) -> np.ndarray:
        """Probabilities (O, P, …) by this segmenter and others."""
        others = [SliceProbe(member, self.image, self.config, turn=self._turn) for member in members]
        by_member = [probe.probabilities(boxes) for probe in (self, *others)]
        self._pay(*others)
        return np.stack(by_member, 1)

    def passes(self, boxes: Sequence[Corners]) -> np.ndarray | None:
        """Probabilities (O, P, …) by passes with dropout, the same at each call; None where there is none."""
        # on one turn, so that no other work runs with dropout
        probabilities: np.ndarray | None = self._at_turn(lambda: self._passes(boxes))
        return probabilities

    def _passes(self, boxes: Sequence[Corners]) -> np.ndarray | None:
        with dropout(self.segmenter, encoder=self.bare) as layers, torch.random.fork_rng():
            if not layers:
                return None
            torch.manual_seed(self.config.seed)
            return np.stack([self.probabilities(boxes) for _ in range(self.config.passes)], 1)

    def augmented(self, boxes: Sequence[Corners]) -> float:
        """Disagreement between the masks of the slice and of its mirrored and darkened copies."""
        dark = (255 * (self.image / 255.0) ** 1.3).round().astype(np.uint8)
        mirrored = np.ascontiguousarray(self.image[:, ::-1])
        right = self.image.shape[1] - 1
        mirrored_boxes = [(right - x1, y0, right - x0, y1) for x0, y0, x1, y1 in boxes]
        votes = [self._votes(boxes)]
        for image, image_boxes, flip in ((dark, boxes, False), (mirrored, mirrored_boxes, True)):
            probe = SliceProbe(self.segmenter, image, self.config, turn=self._turn)
            masks = probe._votes(image_boxes)
            votes.append(masks[..., ::-1] if flip else masks)
            self._pay(probe)
        # (O, P, h, w): the P = 3 masks of each of the O objects
        return float(np.mean([vote_entropy(v) for v in np.stack(votes, 1)]))

    def _votes(self, boxes: Sequence[Corners]) -> np.ndarray:
        """Masks (O, h, w), boolean; for automatic methods, each class but the background is one object."""
        probability = self.probabilities(boxes)
        if self.automatic:
            best = probability[0].argmax(0)
            return np.stack([best == c for c in range(1, probability.shape[1])])
        return np.asarray(probability > 0.5)

    def _at_turn(self, work: Callable[[], Any]) -> Any:
        if self._turn is None or self._inside:
            return work()

        def inside() -> Any:
            self._inside = True
            try:
                with torch.inference_mode():  # turns come in another thread
                    return work()
            finally:
                self._inside = False

        return self._turn(inside)

    def _pay(self, *others: SliceProbe) -> None:
        self.encodes += sum(probe.encodes for probe in others)
        self.decodes += sum(probe.decodes for probe in others)


def is_bare(segmenter: Segmenter) -> bool:
    """Whether the method's embedding is the slice itself, so that each prompt is encoded."""
    return segmenter.keeps_slices or segmenter.input_size is None


def _joined(parts: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
    known = [part for part in parts if part is not None]
    return torch.cat(known, 1) if known else None


@contextmanager
def dropout(segmenter: nn.Module, encoder: bool = False) -> Iterator[int]:
    """Apply dropout as in training, while all other layers stay in evaluation mode.

    Args:
        segmenter: Segmenter in evaluation mode.
        encoder: Whether to include layers of the encoder, which do not affect cached embeddings.

    Yields:
        Number of layers with dropout.
    """
    kinds = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
    layers = [
        module
        for name, module in segmenter.named_modules()
        if isinstance(module, kinds) and module.p > 0 and (encoder or "vision_encoder" not in name)
    ]
    before = [layer.training for layer in layers]
    try:
        for layer in layers:
            layer.train()
        yield len(layers)
    finally:
        for layer, mode in zip(layers, before, strict=True):
            layer.train(mode)
