"""Losses for promptable masks, computed per mask so that the best of several can be chosen."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def focal_loss(logits: Tensor, truth: Tensor, gamma: float = 2.0) -> Tensor:
    """Binary focal loss |p - y|^gamma · BCE(p, y), averaged over pixels (Lin et al., Focal Loss, 2017).

    Args:
        logits: Logits (..., H, W).
        truth: Masks (..., H, W) in [0, 1], broadcast against the logits.
        gamma: Exponent that reduces the weight of easy pixels.

    Returns:
        The loss per mask, (...).
    """
    truth = truth.expand_as(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    missed = (logits.sigmoid() - truth).abs()
    return (missed**gamma * entropy).mean((-2, -1))


def dice_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Dice loss 1 - (2 Σ p y + 1) / (Σ p² + Σ y² + 1) of probabilities p and masks y: (..., H, W) → (...)."""
    probability, truth = logits.sigmoid(), truth.expand_as(logits)
    overlap = (probability * truth).sum((-2, -1))
    return 1 - (2 * overlap + 1) / ((probability**2).sum((-2, -1)) + (truth**2).sum((-2, -1)) + 1)


def extent_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Mean of the Dice losses of the rows and of the columns that an object covers: (..., H, W) → (...).

    A box gives the extent of an object, not its shape; the maxima along rows and columns are compared, as in
    Tian et al., BoxInst (CVPR 2021). The loss thus distinguishes a ring from its interior, which has a
    smaller extent.
    """
    truth = truth.expand_as(logits)
    sides = [dice_loss(logits.amax(axis)[..., None, :], truth.amax(axis)[..., None, :]) for axis in (-2, -1)]
    return (sides[0] + sides[1]) / 2


def mask_loss(logits: Tensor, truth: Tensor, focal_weight: float = 5.0, extent_weight: float = 0.5) -> Tensor:
    """Weighted sum of focal, Dice and extent loss: (..., H, W) → (...).

    SAM was trained with 20 parts of focal loss to one part of Dice (Kirillov et al., 2023). With such a large
    share masks become too small: focal loss weights by pixels, Dice by objects.
    """
    pixels = focal_weight * focal_loss(logits, truth) + dice_loss(logits, truth)
    return pixels + extent_weight * extent_loss(logits, truth)


def iou_of(logits: Tensor, truth: Tensor) -> Tensor:
    """IoU of thresholded logits, without gradient: (..., H, W) → (...)."""
    with torch.no_grad():
        predicted, wanted = logits > 0, truth.expand_as(logits) > 0.5
        both = (predicted & wanted).sum((-2, -1)).float()
        return both / (predicted | wanted).sum((-2, -1)).clamp(min=1)
