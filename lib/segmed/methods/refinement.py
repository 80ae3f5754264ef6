"""What can be done to the mask of a prompt: the option `refine` of every prompt model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from segmed.imaging.masks import slice_box
from segmed.imaging.prompts import SlicePrompt
from segmed.methods.crf import CrfConfig, crf
from segmed.methods.level_set import LevelSetConfig, level_set
from segmed.methods.method import FINISHES
from segmed.methods.outline import OutlineConfig, outline_prompt

_AROUND = 20  # px around the mask that are looked at
_LARGEST_CHANGE = 0.25  # of the area; refinements that do more than that are dropped
_LEAST_DICE = 0.8  # with the mask before
_SETTLED = 0.99  # Dice of two rounds from which on another one is not worth it


@dataclass(frozen=True)
class Rough:
    """A mask to be refined.

    Attributes:
        image: (H, W) or (H, W, 3) uint8.
        probability: (H, W) of the object.
        prompt: the user's.
        again: the model's probability for another prompt on the same slice.
    """

    image: np.ndarray
    probability: np.ndarray
    prompt: SlicePrompt
    again: Callable[[SlicePrompt], np.ndarray]

    @property
    def mask(self) -> np.ndarray:
        return np.asarray(self.probability > 0.5)


Refinement = Callable[[Rough], np.ndarray]
RefinementName = Literal["nothing", "outline", "crf", "level set"]  # what users choose from


def by_outline(rough: Rough, config: OutlineConfig | None = None) -> np.ndarray:
    """Prompt the model again with points along the outline of its own mask, until it settles; (H, W) boolean."""
    config = config or OutlineConfig()
    mask = rough.mask
    for _ in range(config.rounds):
        if not mask.any():
            return mask
        described = outline_prompt(mask, config)
        clicks = [described.points, rough.prompt.points], [described.labels, rough.prompt.labels]
        said = replace(described, points=np.concatenate(clicks[0]), labels=np.concatenate(clicks[1]))
        before, mask = mask, rough.again(replace(said, box=rough.prompt.box or said.box)) > 0.5
        if _dice(before, mask) > _SETTLED:
            break
    return guarded(rough.mask, mask)


def by_crf(rough: Rough, config: CrfConfig | None = None) -> np.ndarray:
    """Draw the mask to the edges of the picture; (H, W) boolean."""

    def sharpen(image: np.ndarray, probability: np.ndarray) -> np.ndarray:
        return crf(image, probability, config) > 0.5

    return _on_crop(rough, sharpen)


def by_level_set(rough: Rough, config: LevelSetConfig | None = None) -> np.ndarray:
    """Move the edge of the mask within a band; (H, W) boolean."""
    return _on_crop(rough, lambda image, probability: level_set(image, probability > 0.5, config))


REFINEMENTS: Mapping[str, Refinement] = dict(zip(FINISHES, (by_outline, by_crf, by_level_set), strict=True))


def guarded(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The refined mask, or the one before where they differ so much that the object must have been lost."""
    area = int(before.sum())
    kept = abs(int(after.sum()) - area) <= _LARGEST_CHANGE * area and _dice(before, after) >= _LEAST_DICE
    return after if kept else before


def _on_crop(rough: Rough, work: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
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
