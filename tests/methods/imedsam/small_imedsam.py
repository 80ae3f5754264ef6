"""A small IMedSAM and discs that it learns in a few steps."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from segmed.imaging.prompts import SlicePrompt
from segmed.methods.imedsam.imedsam import Imedsam, ImedsamConfig
from tiny_sam import tiny_sam
from torch import Tensor, nn

SIZE = 128  # 8 tokens per side
STEPS = 30


def discs(count: int, seed: int, size: int = SIZE) -> tuple[Tensor, list[list[SlicePrompt]], Tensor]:
    """Noisy bright discs with tight boxes: images (B, 3, S, S), prompts, masks (B, 1, S, S)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    pictures, prompts, masks = [], [], []
    for _ in range(count):
        r = rng.uniform(0.15, 0.3) * size
        cx, cy = rng.uniform(r + 1, size - r - 1, 2)
        mask = (x - cx) ** 2 + (y - cy) ** 2 < r * r
        pictures.append(np.where(mask, 0.8, 0.2) + rng.normal(0, 0.03, mask.shape))
        prompts.append([SlicePrompt(box=(cx - r, cy - r, cx + r, cy + r))])
        masks.append(mask)
    images = torch.from_numpy(np.stack(pictures)).float()[:, None].expand(-1, 3, -1, -1)
    return images, prompts, torch.from_numpy(np.stack(masks)).float()[:, None]


def train(method: Imedsam, steps: int) -> list[float]:
    """By the recipe, but for faster rates behind the decoder's transformer.

    Random upscaling keeps next to nothing of the picture, and at the recipe's rate, which is for that of a
    trained SAM, it would not come to within so few steps.
    """
    recipe = replace(
        method.recipe, rates={**method.recipe.rates, "decoder.": 3e-3, "model.mask_decoder.": 3e-3}
    )
    method.prepare_training()
    method.train()
    groups: dict[float, list[nn.Parameter]] = defaultdict(list)
    for name, parameter in method.named_parameters():
        if parameter.requires_grad:
            groups[recipe.rate(name)].append(parameter)
    optimiser = torch.optim.AdamW(
        [{"params": p, "lr": r} for r, p in groups.items()], weight_decay=recipe.weight_decay
    )
    torch.manual_seed(0)
    losses = []
    for step in range(steps):
        images, prompts, truth = discs(4, step)
        loss = method.loss(images, prompts, F.avg_pool2d(truth, 2), progress=step / steps)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    method.eval()
    return losses


def fresh(config: ImedsamConfig | None = None, seed: int = 0, size: int = SIZE) -> Imedsam:
    base = tiny_sam(seed, size)
    torch.manual_seed(seed)
    return Imedsam(base, config).eval()


def dice(one: Tensor, other: Tensor) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def mixed_prompts() -> list[SlicePrompt]:
    """Box, box and clicks, a lone click, mask: every kind that the prompt encoder knows."""
    mask = np.zeros((SIZE, SIZE), bool)
    mask[20:40, 20:40] = True
    clicks = np.array([[30, 30], [5, 5]], np.float32)
    return [
        SlicePrompt(box=(10, 12, 40, 44)),
        SlicePrompt(box=(10, 12, 40, 44), points=clicks, labels=np.array([1, 0])),
        SlicePrompt(points=clicks[:1], labels=np.array([1])),
        SlicePrompt(mask=mask),
    ]
