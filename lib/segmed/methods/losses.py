"""Losses of promptable masks, per sample so that the best of several masks can be chosen."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def focal_loss(logits: Tensor, truth: Tensor, gamma: float = 2.0) -> Tensor:
    """Binary focal loss, mean over pixels (Lin et al., Focal Loss, 2017).

    Args:
        logits: (..., H, W)
        truth: (..., H, W) in [0, 1], broadcast against the logits.
        gamma: how much less easy pixels weigh.

    Returns:
        (...)
    """
    truth = truth.expand_as(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    missed = (logits.sigmoid() - truth).abs()
    return (missed**gamma * entropy).mean((-2, -1))


def dice_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """1 - Dice of probabilities with squares in the denominator, smoothed by one pixel: (..., H, W) → (...)."""
    probability, truth = logits.sigmoid(), truth.expand_as(logits)
    overlap = (probability * truth).sum((-2, -1))
    return 1 - (2 * overlap + 1) / ((probability**2).sum((-2, -1)) + (truth**2).sum((-2, -1)) + 1)


def extent_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Dice loss of the rows and of the columns that an object reaches: (..., H, W) → (...).

    A box says how far an object reaches, not how full it is; the maximum along each row and column is compared, as in
    Tian et al., BoxInst (CVPR 2021). What a ring encloses does not reach as far as the ring.
    """
    truth = truth.expand_as(logits)
    sides = [dice_loss(logits.amax(axis)[..., None, :], truth.amax(axis)[..., None, :]) for axis in (-2, -1)]
    return (sides[0] + sides[1]) / 2


def mask_loss(logits: Tensor, truth: Tensor, focal_weight: float = 5.0, extent_weight: float = 0.5) -> Tensor:
    """Focal, Dice and extent loss: (...).

    SAM was trained with 20 parts of focal loss to one of Dice (Kirillov et al., 2023). That many leave masks too small:
    focal loss counts pixels, Dice counts objects.
    """
    pixels = focal_weight * focal_loss(logits, truth) + dice_loss(logits, truth)
    return pixels + extent_weight * extent_loss(logits, truth)


def iou_of(logits: Tensor, truth: Tensor) -> Tensor:
    """IoU of thresholded logits, without gradient: (..., H, W) → (...)."""
    with torch.no_grad():
        found, wanted = logits > 0, truth.expand_as(logits) > 0.5
        both = (found & wanted).sum((-2, -1)).float()
        return both / (found | wanted).sum((-2, -1)).clamp(min=1)
