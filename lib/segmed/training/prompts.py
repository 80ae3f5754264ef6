"""Simulated prompts: boxes drawn a little off, and clicks where an annotator would correct.

The protocol of rounds follows SAM (Kirillov et al., 2023) and ScribblePrompt (Wong et al., 2024): a first prompt, then
clicks into the largest error, with the previous mask as a prompt. All functions work on batches on any device and draw
from the given generator only.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor


@dataclass(frozen=True)
class PromptConfig:
    """How prompts are drawn.

    Attributes:
        box_inward: most that a side of a box lies inside the object, as share of the box's side.
        box_outward: most that it lies outside.
        centre_share: share of first clicks at the object's deepest place, the others are anywhere in it.
        error_share: share of corrections at the deepest place of the largest error, the others anywhere in it.
        max_rounds: most rounds of prompting a sample, the first one among them.
    """

    box_inward: float = 0.05
    box_outward: float = 0.20
    centre_share: float = 0.5
    error_share: float = 0.6
    max_rounds: int = 5

    def __post_init__(self) -> None:
        for name in ("centre_share", "error_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, but a share lies between 0 and 1.")
        if not 0 <= self.box_inward < 0.5 or self.box_outward < 0:
            raise ValueError(
                f"box_inward {self.box_inward} must lie in [0, 0.5) and box_outward {self.box_outward} must not be "
                "negative: beyond that a jittered box loses its object."
            )
        if self.max_rounds < 1:
            raise ValueError(f"max_rounds is {self.max_rounds}; at least one round of prompts is needed.")


def tight_boxes(masks: Tensor) -> Tensor:
    """Inclusive boxes (B, 4) as x0, y0, x1, y1 px of masks (B, H, W); an empty mask gives the whole image."""
    rows, columns = masks.any(2), masks.any(1)
    height, width = masks.shape[1:]

    def ends(hit: Tensor, size: int) -> tuple[Tensor, Tensor]:
        place = torch.arange(size, device=masks.device)
        low = torch.where(hit, place, size).amin(1)
        high = torch.where(hit, place, -1).amax(1)
        empty = high < 0
        return low.masked_fill(empty, 0), high.masked_fill(empty, size - 1)

    (y0, y1), (x0, x1) = ends(rows, height), ends(columns, width)
    return torch.stack([x0, y0, x1, y1], 1).float()


def jittered_boxes(masks: Tensor, generator: Generator, inward: float = 0.05, outward: float = 0.20) -> Tensor:
    """Tight boxes with each side moved on its own, clipped to the image.

    Args:
        masks: (B, H, W) boolean.
        generator: source of randomness, on the device of the masks.
        inward: largest move into the object, as share of the box's width or height.
        outward: largest move away from it.

    Each box has a carelessness of its own, uniform in [0, 1), that scales its moves: many users draw well.

    Returns:
        (B, 4) x0, y0, x1, y1 in px.
    """
    boxes = tight_boxes(masks)
    sides = (boxes[:, 2:] - boxes[:, :2] + 1).repeat(1, 2)
    draw = torch.rand(len(boxes), 5, generator=generator, device=masks.device)
    move = (draw[:, :4] * (inward + outward) - inward) * draw[:, 4:]
    sign = torch.tensor([-1.0, -1.0, 1.0, 1.0], device=masks.device)
    limit = torch.tensor([masks.shape[2] - 1, masks.shape[1] - 1] * 2, device=masks.device).float()
    return torch.minimum((boxes + sign * move * sides).clamp(min=0), limit)


def depth(masks: Tensor, steps: int = 24) -> Tensor:
    """How deep a pixel lies in its mask: erosions of 3×3 survived, (B, H, W) float, at most `steps`; borders count."""
    inside = F.pad(masks.float()[:, None], (1, 1, 1, 1))
    total = inside.clone()
    for _ in range(steps):
        inside = F.pad(-F.max_pool2d(-inside, 3, 1), (1, 1, 1, 1))
        if not inside.any():
            break
        total += inside
    return total[:, 0, 1:-1, 1:-1]


def click_in(masks: Tensor, deepest: Tensor, generator: Generator) -> Tensor:
    """One pixel of each mask.

    Args:
        masks: (B, H, W) boolean; an empty one gives a pixel of the image.
        deepest: (B,) boolean, whether to take the deepest pixel (ties by chance) or any.
        generator: source of randomness.

    Returns:
        (B, 2) x, y in px.
    """
    chance = torch.rand(masks.shape, generator=generator, device=masks.device)
    score = torch.where(deepest[:, None, None], depth(masks) + 0.5 * chance, chance)
    score = torch.where(masks, score, -1.0)
    flat = score.flatten(1).argmax(1)
    return torch.stack([flat % masks.shape[2], flat // masks.shape[2]], 1).float()


def first_clicks(truth: Tensor, generator: Generator, config: PromptConfig) -> tuple[Tensor, Tensor]:
    """Clicks into the object: (B, 2) x, y in px, and labels (B,), all 1."""
    deepest = torch.rand(len(truth), generator=generator, device=truth.device) < config.centre_share
    labels = torch.ones(len(truth), dtype=torch.long, device=truth.device)
    return click_in(truth, deepest, generator), labels


def correcting_clicks(
    prediction: Tensor, truth: Tensor, generator: Generator, config: PromptConfig
) -> tuple[Tensor, Tensor]:
    """Clicks into what is missed or too much, whichever reaches deeper; where nothing is wrong, into the object.

    Args:
        prediction: (B, H, W) boolean.
        truth: (B, H, W) boolean.
        generator: source of randomness.
        config: how often the deepest place is taken.

    Returns:
        (B, 2) x, y in px, and labels (B,): 1 for missed, 0 for too much.
    """
    missed, extra = truth & ~prediction, prediction & ~truth
    gravity = [depth(error).flatten(1).amax(1) + error.flatten(1).float().mean(1) for error in (missed, extra)]
    add = gravity[0] >= gravity[1]
    error = torch.where(add[:, None, None], missed, extra)
    perfect = ~error.flatten(1).any(1)
    error = torch.where(perfect[:, None, None], truth, error)
    deepest = torch.rand(len(truth), generator=generator, device=truth.device) < config.error_share
    return click_in(error, deepest, generator), (add | perfect).long()
