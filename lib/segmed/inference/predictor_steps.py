"""Steps of a prediction that need no state: kinds of prompts, and maps that are read from logits."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segmed.imaging.picture import Picture
from segmed.imaging.prompts import Prompt, SlicePrompt
from segmed.methods.base.segmenter import Logits


def is_blank(picture: Picture, k: int) -> bool:
    """Whether all pixels of a slice have the same value."""
    image = picture.slice(k)
    return bool(image.min() == image.max())


def has_thick_box(prompt: Prompt) -> bool:
    """Whether a prompt has a box over several slices."""
    return prompt.box is not None and not prompt.box.is_flat


def has_box_or_clicks(prompt: SlicePrompt) -> bool:
    """Whether a prompt says more about its slice than a mask does."""
    return prompt.box is not None or len(prompt.labels) > 0


def probability_of(logits: Logits) -> Tensor:
    """Probability of each object, (B, K, H, W) float32 in [0, 1]."""
    return logits.masks.float().sigmoid()


def uncertainty_of(logits: Logits) -> Tensor:
    """Standard deviation of the probability in per cent of 0.5, its maximum: (B, K, H, W) uint8.

    Raises:
        ValueError: If the method gives no uncertainty.
    """
    if logits.uncertainty is None:
        raise ValueError("This model gives no map of uncertainty. Take the output 'mask', or another model.")
    return (logits.uncertainty.sqrt() * 200).round().clamp(0, 100).to(torch.uint8)


def with_exclusions(propagated: SlicePrompt, prompt: Prompt, k: int, with_mask: bool) -> SlicePrompt:
    """Add the user's background clicks and scribbles on slice k to a propagated prompt.

    Args:
        propagated: The box around the neighbour's mask, and that mask.
        prompt: The user's prompt in the volume.
        k: Index of the slice.
        with_mask: Whether the method is prompted with the neighbour's mask as well.
    """
    mask, scribbles = propagated.mask if with_mask else None, prompt.scribbles.get(k)
    excluded = np.array([(i, j) for i, j, kk in prompt.background if kk == k], np.float32).reshape(-1, 2)
    return SlicePrompt(propagated.box, excluded, np.zeros(len(excluded), np.int64), mask, scribbles)
