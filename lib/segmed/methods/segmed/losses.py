"""The loss of one training step of the default model."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from segmed.methods.base.losses import dice_loss, extent_loss, iou_of
from segmed.methods.segmed.network import MASKS

_CROSS_ENTROPY, _EXTENT = 1.5, 0.4  # weights relative to that of Dice


def mask_losses(logits: Tensor, truth: Tensor) -> Tensor:
    """Weighted sum of cross-entropy, Dice and extent loss of masks: (B, M, S, S) and (B, S, S) to (B, M).

    Cross-entropy keeps probabilities calibrated, Dice weights objects equally whatever their size, and the
    extent loss compares the rows and columns that masks cover, because a box gives the extent of an object.
    """
    wanted = truth[:, None].expand_as(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean((-2, -1))
    return _CROSS_ENTROPY * entropy + dice_loss(logits, wanted) + _EXTENT * extent_loss(logits, wanted)


def step_loss(logits: Tensor, quality: Tensor, truth: Tensor, lone: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the loss of a batch, and the true IoU of the masks that would be chosen.

    For a single click, the best of the three multi-mask outputs is trained, and all of them a little, so that
    none degenerates: 0.9 min_m L_m + 0.1 mean_m L_m. For any other prompt the first mask is trained. The
    predicted IoU of the used masks is trained to match their true IoU.

    Args:
        logits: Logits (B, 4, S, S).
        quality: Predicted IoU (B, 4).
        truth: Masks (B, S, S) in [0, 1].
        lone: Boolean (B,), true for prompts that are a single click.

    Returns:
        The loss, the IoU (B,) of the mask with the highest predicted IoU, and the index (B,) of that mask.
    """
    per_mask = mask_losses(logits, truth)  # (B, 4)
    used = torch.zeros_like(quality, dtype=torch.bool)
    used[:, 0], used[:, 1:] = ~lone, lone[:, None].expand(-1, MASKS - 1)
    best = per_mask.masked_fill(~used, float("inf")).argmin(1, keepdim=True)
    mask_term = per_mask.gather(1, best)[:, 0]
    others = (per_mask * used).sum(1) / used.sum(1)
    mask_term = torch.where(lone, 0.9 * mask_term + 0.1 * others, mask_term)
    iou = iou_of(logits, truth[:, None])
    error = ((quality - iou) ** 2 * used).sum(1) / used.sum(1)
    chosen = quality.masked_fill(~used, -1.0).argmax(1, keepdim=True)
    return (mask_term + error).mean(), iou.gather(1, chosen)[:, 0], chosen[:, 0]
