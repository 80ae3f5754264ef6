"""Refinements of a predicted mask, for the option `refine` of every prompt model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from segmed.imaging.labels.masks import slice_box
from segmed.imaging.prompts import SlicePrompt
from segmed.inference.refinement.crf import CrfConfig, crf
from segmed.inference.refinement.level_set import LevelSetConfig, level_set
from segmed.inference.refinement.outline import OutlineConfig, outline_prompt
from segmed.methods.base.method import REFINEMENT_NAMES

_AROUND = 20  # margin in px around the mask of the region that is refined
_LARGEST_CHANGE = 0.25  # largest relative change of the area by a refinement; others are discarded
_LEAST_DICE = 0.8  # smallest Dice of a refined mask with the mask before; others are discarded
_SETTLED = 0.99  # Dice of two rounds above which no further round is run


@dataclass(frozen=True)
class Rough:
    """A mask to be refined.

    Attributes:
        image: The slice, (H, W) or (H, W, 3), uint8.
        probability: Probability of the object, (H, W).
        prompt: The user's prompt.
        again: Function that returns the model's probability (H, W) for another prompt on the same slice.
    """

    image: np.ndarray
    probability: np.ndarray
    prompt: SlicePrompt
    again: Callable[[SlicePrompt], np.ndarray]

    @property
    def mask(self) -> np.ndarray:
        """The boolean mask, (H, W)."""
        return np.asarray(self.probability > 0.5)


Refinement = Callable[[Rough], np.ndarray]
RefinementName = Literal["nothing", "outline", "crf", "level set"]  # what users choose from


def by_outline(rough: Rough, config: OutlineConfig | None = None) -> np.ndarray:
    """Prompt again with the outline of the model's own mask until it hardly changes; (H, W) boolean."""
    config = config or OutlineConfig()
    mask = rough.mask
    for _ in range(config.rounds):
        if not mask.any():
            return mask
        outline = outline_prompt(mask, config)
        clicks = [outline.points, rough.prompt.points], [outline.labels, rough.prompt.labels]
        again = replace(outline, points=np.concatenate(clicks[0]), labels=np.concatenate(clicks[1]))
        before, mask = mask, rough.again(replace(again, box=rough.prompt.box or again.box)) > 0.5
        if _dice(before, mask) > _SETTLED:
            break
    return guarded(rough.mask, mask)


def by_crf(rough: Rough, config: CrfConfig | None = None) -> np.ndarray:
    """Align the edge of the mask with the edges of the image by a random field; (H, W) boolean."""

    def sharpen(image: np.ndarray, probability: np.ndarray) -> np.ndarray:
        return crf(image, probability, config) > 0.5

    return _on_crop(rough, sharpen)


def by_level_set(rough: Rough, config: LevelSetConfig | None = None) -> np.ndarray:
    """Move the edge of the mask within a band by a level set; (H, W) boolean."""
    return _on_crop(rough, lambda image, probability: level_set(image, probability > 0.5, config))


REFINEMENTS: Mapping[str, Refinement] = dict(
    zip(REFINEMENT_NAMES, (by_outline, by_crf, by_level_set), strict=True)
)


def guarded(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The refined mask, or the one before if they differ so much that the object was probably lost."""
    area = int(before.sum())
    kept = abs(int(after.sum()) - area) <= _LARGEST_CHANGE * area and _dice(before, after) >= _LEAST_DICE
    return after if kept else before


def _on_crop(rough: Rough, work: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """Refine a crop around the mask by `work(image, probability)`, guarded against large changes."""
    mask = rough.mask
    if not mask.any():
        return mask
    x0, y0, x1, y1 = (int(v) for v in slice_box(mask))
    crop = slice(max(y0 - _AROUND, 0), y1 + _AROUND + 1), slice(max(x0 - _AROUND, 0), x1 + _AROUND + 1)
    refined = mask.copy()
    refined[crop] = work(rough.image[crop], rough.probability[crop])
    return guarded(mask, refined)


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * float((a & b).sum()) / max(int(a.sum()) + int(b.sum()), 1)
