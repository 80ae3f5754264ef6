"""Simulated prompts in training: jittered boxes, and clicks where an annotator would correct.

The protocol of rounds follows SAM (Kirillov et al., 2023) and ScribblePrompt (Wong et al., 2024): a first
prompt, then clicks on the largest error, with the previous mask as a prompt. All functions work on batches on
any device and draw from the given generator only.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor


@dataclass(frozen=True)
class PromptConfig:
    """The settings of simulated prompts.

    Attributes:
        box_inward: Largest move of a box's side into the object, as a share of the box's side.
        box_outward: Largest move of a box's side away from the object, as a share of the box's side.
        centre_share: Share of first clicks at the deepest pixel of the object; the others are anywhere in it.
        error_share: Share of corrections at the deepest pixel of the largest error; the others are anywhere
            in it.
        max_rounds: Largest number of rounds per sample, with the first one.
    """

    box_inward: float = 0.05
    box_outward: float = 0.20
    centre_share: float = 0.5
    error_share: float = 0.6
    max_rounds: int = 5

    def __post_init__(self) -> None:
        for name in ("centre_share", "error_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed are shares from 0 to 1.")
        if not 0 <= self.box_inward < 0.5 or self.box_outward < 0:
            raise ValueError(
                f"box_inward is {self.box_inward}, which must be in [0, 0.5), and box_outward is "
                f"{self.box_outward}, which must not be negative: otherwise a jittered box loses its object."
            )
        if self.max_rounds < 1:
            raise ValueError(f"max_rounds is {self.max_rounds}; give at least 1.")


def tight_boxes(masks: Tensor) -> Tensor:
    """Tight boxes (B, 4), x0, y0, x1, y1 in px, ends inclusive, of masks (B, H, W); all if empty."""
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


def jittered_boxes(
    masks: Tensor, generator: Generator, inward: float = 0.05, outward: float = 0.20
) -> Tensor:
    """Draw tight boxes with each side moved on its own, clipped to the image.

    Each box has a jitter of its own, uniform in [0, 1), that scales its moves: many users draw precisely.

    Args:
        masks: Masks (B, H, W), boolean.
        generator: A random generator on the device of the masks.
        inward: Largest move into the object, as a share of the box's width or height.
        outward: Largest move away from the object, as a share of the box's width or height.

    Returns:
        Boxes (B, 4) as x0, y0, x1, y1 in px.
    """
    boxes = tight_boxes(masks)
    sides = (boxes[:, 2:] - boxes[:, :2] + 1).repeat(1, 2)
    draw = torch.rand(len(boxes), 5, generator=generator, device=masks.device)
    move = (draw[:, :4] * (inward + outward) - inward) * draw[:, 4:]
    sign = torch.tensor([-1.0, -1.0, 1.0, 1.0], device=masks.device)
    limit = torch.tensor([masks.shape[2] - 1, masks.shape[1] - 1] * 2, device=masks.device).float()
    return torch.minimum((boxes + sign * move * sides).clamp(min=0), limit)


def depth(masks: Tensor, steps: int = 24) -> Tensor:
    """Depth of each pixel in its mask, (B, H, W) float: the survived 3 × 3 erosions plus one.

    Pixels outside of the image count as background; the depth is limited to `steps` + 1.
    """
    inside = F.pad(masks.float()[:, None], (1, 1, 1, 1))
    total = inside.clone()
    for _ in range(steps):
        inside = F.pad(-F.max_pool2d(-inside, 3, 1), (1, 1, 1, 1))
        if not inside.any():
            break
        total += inside
    return total[:, 0, 1:-1, 1:-1]


def click_in(masks: Tensor, deepest: Tensor, generator: Generator) -> Tensor:
    """Draw one pixel of each mask.

    Args:
        masks: Masks (B, H, W), boolean; an empty mask gives a pixel of the image.
        deepest: Boolean (B,), whether to take the deepest pixel (ties at random) or any.
        generator: A random generator on the device of the masks.

    Returns:
        Pixels (B, 2) as x, y in px.
    """
    chance = torch.rand(masks.shape, generator=generator, device=masks.device)
    score = torch.where(deepest[:, None, None], depth(masks) + 0.5 * chance, chance)
    score = torch.where(masks, score, -1.0)
    flat = score.flatten(1).argmax(1)
    return torch.stack([flat % masks.shape[2], flat // masks.shape[2]], 1).float()


def first_clicks(truth: Tensor, generator: Generator, config: PromptConfig) -> tuple[Tensor, Tensor]:
    """Draw clicks on the object: (B, 2) as x, y in px, and labels (B,), all 1."""
    deepest = torch.rand(len(truth), generator=generator, device=truth.device) < config.centre_share
    labels = torch.ones(len(truth), dtype=torch.long, device=truth.device)
    return click_in(truth, deepest, generator), labels


def correcting_clicks(
    prediction: Tensor, truth: Tensor, generator: Generator, config: PromptConfig
) -> tuple[Tensor, Tensor]:
    """Draw clicks on the missed or the extra part, whichever is deeper, or on the object if nothing is wrong.

    Args:
        prediction: Predicted masks (B, H, W), boolean.
        truth: True masks (B, H, W), boolean.
        generator: A random generator on the device of the masks.
        config: The settings, with the share of clicks at the deepest pixel.

    Returns:
        Clicks (B, 2) as x, y in px, and labels (B,): 1 for missed, 0 for extra parts.
    """
    missed, extra = truth & ~prediction, prediction & ~truth
    gravity = [
        depth(error).flatten(1).amax(1) + error.flatten(1).float().mean(1) for error in (missed, extra)
    ]
    add = gravity[0] >= gravity[1]
    error = torch.where(add[:, None, None], missed, extra)
    perfect = ~error.flatten(1).any(1)
    error = torch.where(perfect[:, None, None], truth, error)
    deepest = torch.rand(len(truth), generator=generator, device=truth.device) < config.error_share
    return click_in(error, deepest, generator), (add | perfect).long()
