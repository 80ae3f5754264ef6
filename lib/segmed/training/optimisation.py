"""Optimisers and schedules of learning rates by the recipe of a method."""

from __future__ import annotations

import math
from typing import Any

import torch

from segmed.methods.base.trainable import Recipe

_POLY_POWER = 0.9
_LAST_OF_LINEAR = 1e-3
_MOMENTUM = 0.937


def build_optimiser(recipe: Recipe, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Build the optimiser of a recipe for groups of parameters with their learning rates."""
    decay = recipe.weight_decay
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(groups, weight_decay=decay, momentum=_MOMENTUM, nesterov=True)
    kind = torch.optim.Adam if recipe.optimiser == "adam" else torch.optim.AdamW
    return kind(groups, weight_decay=decay)


def rate_factor(recipe: Recipe, step: int, steps: int) -> float:
    """Factor of the learning rates in a step; 1 for `plateau`, which does not depend on the step.

    The warm-up takes at most a tenth of the steps, so that short runs do not consist of it.
    """
    if recipe.schedule == "linear":
        return 1 - (1 - _LAST_OF_LINEAR) * step / max(steps, 1)
    if recipe.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * step / max(steps, 1)))
    if recipe.schedule != "poly":
        return 1.0
    warmup = min(recipe.warmup, steps // 10)
    if step < warmup:
        return (step + 1) / warmup
    return (1 - (step - warmup) / max(steps, 1)) ** _POLY_POWER
