"""How well targets stand out from what is around them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def visibility(images: Tensor, targets: Tensor, reach: int = 4) -> Tensor:
    """How much targets differ from what is around them: the difference of means over the standard deviation.

    Args:
        images: (B, 3, H, H)
        targets: (B, K, H, H) boolean.
        reach: width of the surroundings in px, at half of the resolution.

    Returns:
        (B, K), the largest of the channels; 0 for empty targets.
    """
    small = F.avg_pool2d(images, 2)
    inside = F.avg_pool2d(targets.float(), 2)
    around = F.max_pool2d(inside, 2 * reach + 1, 1, reach) - F.max_pool2d(inside, 3, 1, 1)
    sums = []
    for weight in (inside, around):
        total = weight.sum((2, 3))[..., None].clamp(min=1e-6)
        mean = torch.einsum("bkhw,bchw->bkc", weight, small) / total
        square = torch.einsum("bkhw,bchw->bkc", weight, small**2) / total
        sums.append((mean, (square - mean**2).clamp(min=0)))
    (mean, variance), (other_mean, other_variance) = sums
    contrast = (mean - other_mean).abs() / (((variance + other_variance) / 2).sqrt() + 0.02)
    seen = contrast.amax(-1)
    return torch.where(inside.sum((2, 3)) * around.sum((2, 3)) > 0, seen, torch.zeros_like(seen))
