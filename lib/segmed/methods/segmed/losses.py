"""The loss of one training step of the default model."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from segmed.methods.losses import dice_loss, extent_loss, iou_of
from segmed.methods.segmed.network import MASKS

_CROSS_ENTROPY, _EXTENT = 1.5, 0.4  # beside one part of Dice


def mask_losses(logits: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy, Dice and extent loss of masks: (B, M, S, S) and (B, S, S) to (B, M).

    Cross-entropy keeps probabilities calibrated, Dice counts objects alike whatever their size, and the extent loss
    compares the rows and columns that masks reach, because a box says how far an object reaches.
    """
    wanted = truth[:, None].expand_as(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean((-2, -1))
    return _CROSS_ENTROPY * entropy + dice_loss(logits, wanted) + _EXTENT * extent_loss(logits, wanted)


def step_loss(logits: Tensor, quality: Tensor, truth: Tensor, lone: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The loss of a batch, and what its masks are worth.

    A lone click is taught through the best of its three masks, and a little through all of them, so that none is lost;
    any other prompt through the first mask. The predicted IoU of the masks in use is taught by their true IoU.

    Args:
        logits: (B, 4, S, S)
        quality: (B, 4) predicted IoU.
        truth: (B, S, S) in [0, 1].
        lone: (B,) boolean, lone clicks.

    Returns:
        The loss, the IoU (B,) of the mask that the predicted IoU chooses, and the place (B,) of that mask.
    """
    per_mask = mask_losses(logits, truth)  # (B, 4)
    used = torch.zeros_like(quality, dtype=torch.bool)
    used[:, 0], used[:, 1:] = ~lone, lone[:, None].expand(-1, MASKS - 1)
    best = per_mask.masked_fill(~used, float("inf")).argmin(1, keepdim=True)
    taught = per_mask.gather(1, best)[:, 0]
    others = (per_mask * used).sum(1) / used.sum(1)
    taught = torch.where(lone, 0.9 * taught + 0.1 * others, taught)
    iou = iou_of(logits, truth[:, None])
    error = ((quality - iou) ** 2 * used).sum(1) / used.sum(1)
    chosen = quality.masked_fill(~used, -1.0).argmax(1, keepdim=True)
    return (taught + error).mean(), iou.gather(1, chosen)[:, 0], chosen[:, 0]
