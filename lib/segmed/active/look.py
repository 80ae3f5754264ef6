"""One slice under one segmenter: what it is asked for, how unsure the answers are, and what that cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from segmed.active.proposals import Corners, box_of, class_objects, click_prompts, distinct_objects, region_objects
from segmed.active.scorer_config import ScorerConfig
from segmed.active.uncertainty import (
    bald_of_variance,
    predicted_error,
    predictive_entropy,
    prompt_disagreement,
    vote_entropy,
)
from segmed.evaluation.annotator import jittered
from segmed.imaging.prompts import SlicePrompt
from segmed.methods.segmenter import Logits, Segmenter
from segmed.sam.embedding import Embedding

Turn = Callable[[Callable[[], Any]], Any]
_AT_ONCE = 4  # prompts that are encoded by themselves; a user who comes waits for so many


class SliceProbe:
    """A slice, its embedding and what was spent on it.

    Attributes:
        bare: the method keeps the slice itself and no features of it.
        automatic: it labels slices without a prompt.
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

    def decode(self, prompts: Sequence[SlicePrompt]) -> Logits:
        """Masks (1, K, h, w)."""
        self.decodes += len(prompts)
        step = _AT_ONCE if self.bare else len(prompts)

        def some(first: int) -> Logits:
            return self.segmenter.decode(self.embedding, [list(prompts[first : first + step])], self.size)

        parts: list[Logits] = [self._at_turn(partial(some, n)) for n in range(0, len(prompts), step)]
        masks = torch.cat([part.masks for part in parts], 1)
        return Logits(masks, _joined([part.quality for part in parts]), _joined([part.uncertainty for part in parts]))

    def classes(self) -> np.ndarray:
        """Probabilities (C, h, w)."""
        self.decodes += 1
        logits: Logits = self._at_turn(lambda: self.segmenter.decode(self.embedding, None, self.size))
        return logits.masks[0].float().softmax(0).cpu().numpy()

    def boxes(self, places: np.ndarray | None, classes: np.ndarray | None) -> list[Corners]:
        """What to ask for.

        Args:
            places: (N, 2) where objects may be, as shares of width and height, or None.
            classes: (C, h, w) probabilities of an automatic method, else None.
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
            quality = np.ones(len(masks)) if logits.quality is None else logits.quality[0].float().cpu().numpy()
            objects = distinct_objects(masks, quality, self.config.objects)
            if not objects and places is not None and len(places):  # nothing where others had something
                return self.boxes(None, None)
        return [box_of(mask, shape) for mask in objects]

    def score_boxes(self, boxes: Sequence[Corners], generator: np.random.Generator) -> dict[str, float]:
        """Quantities by each box as it is and drawn otherwise, decoded together."""
        shape = self.image.shape[0], self.image.shape[1]
        drawings = [
            [b, *(jittered(b, self.config.jitter, shape, generator) for _ in range(self.config.jitters))] for b in boxes
        ]
        logits = self.decode([SlicePrompt(box=box) for row in drawings for box in row])
        each = 1 + self.config.jitters
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
        """(O, h, w) of the boxes' objects, or (1, C, h, w) of the classes of an automatic method."""
        if self.automatic:
            return self.classes()[None]
        logits = self.decode([SlicePrompt(box=box) for box in boxes])
        return logits.masks[0].float().sigmoid().cpu().numpy()

    def ensemble(self, boxes: Sequence[Corners], members: Sequence[Segmenter]) -> np.ndarray:
        """Probabilities (O, P, …) by this segmenter and others."""
        others = [SliceProbe(member, self.image, self.config, turn=self._turn) for member in members]
        found = [look.probabilities(boxes) for look in (self, *others)]
        self._pay(*others)
        return np.stack(found, 1)

    def passes(self, boxes: Sequence[Corners]) -> np.ndarray | None:
        """Probabilities (O, P, …) by passes with dropout, the same at each call; None where there is none."""
        found: np.ndarray | None = self._at_turn(lambda: self._passes(boxes))  # nobody else's with dropout
        return found

    def _passes(self, boxes: Sequence[Corners]) -> np.ndarray | None:
        with dropout(self.segmenter, encoder=self.bare) as layers, torch.random.fork_rng():
            if not layers:
                return None
            torch.manual_seed(self.config.seed)
            return np.stack([self.probabilities(boxes) for _ in range(self.config.passes)], 1)

    def augmented(self, boxes: Sequence[Corners]) -> float:
        """Disagreement of the slice with itself, mirrored and darkened."""
        dark = (255 * (self.image / 255.0) ** 1.3).round().astype(np.uint8)
        mirrored = np.ascontiguousarray(self.image[:, ::-1])
        right = self.image.shape[1] - 1
        turned = [(right - x1, y0, right - x0, y1) for x0, y0, x1, y1 in boxes]
        votes = [self._votes(boxes)]
        for image, asked, flip in ((dark, boxes, False), (mirrored, turned, True)):
            look = SliceProbe(self.segmenter, image, self.config, turn=self._turn)
            found = look._votes(asked)
            votes.append(found[..., ::-1] if flip else found)
            self._pay(look)
        return float(np.mean([vote_entropy(v) for v in np.stack(votes, 1)]))

    def _votes(self, boxes: Sequence[Corners]) -> np.ndarray:
        """(O, h, w) boolean; of automatic methods each class is one object, the background not."""
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
        self.encodes += sum(look.encodes for look in others)
        self.decodes += sum(look.decodes for look in others)


def is_bare(segmenter: Segmenter) -> bool:
    """Whether its embedding is the slice itself, so that each prompt is encoded."""
    return segmenter.keeps_slices or segmenter.input_size is None


def _joined(parts: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
    known = [part for part in parts if part is not None]
    return torch.cat(known, 1) if known else None


@contextmanager
def dropout(segmenter: nn.Module, encoder: bool = False) -> Iterator[int]:
    """Dropout as in training while all else is as in use.

    Args:
        segmenter: in evaluation mode.
        encoder: whether layers of the encoder count, which cached embeddings have behind them.

    Yields:
        How many layers drop.
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
