"""What grey values or colours say about each pixel of a window: likelihoods of inside and outside of a prompt.

The idea is that of GrabCut (Rother et al., SIGGRAPH 2004) without its graph: histograms of what is probably inside and
of the rest, refined in turns. A network that gets this as input need not learn to compare distant pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from segmed.sam.window import draw_frames

_BINS = 24
_ROUNDS = 3
_CLICK_NEAR, _CLICK_FAR = 0.05, 0.25  # standard deviations around a click, as shares of the window


def encode_prompt_channels(images: Tensor, valid: Tensor, boxes: Tensor | None, clicks: Tensor | None) -> Tensor:
    """Windows as the encoder gets them: brightness, first evidence, refined evidence with the prompt drawn into it.

    Args:
        images: (B, 3, S, S) in [0, 1].
        valid: (B, S, S) boolean, pixels that lie on the slice.
        boxes: (B, 4) x0, y0, x1, y1 in px of the window, or None to go by clicks.
        clicks: (B, 2) x, y in px of the window, inside the object; used without boxes.

    Returns:
        (B, 3, S, S)
    """
    if boxes is None:
        assert clicks is not None
        prior, weight = _click_prior(images, clicks)
        marks = torch.cat([clicks, clicks], 1)
    else:
        prior, weight = _box_prior(images, boxes)
        marks = boxes
    first = _evidence(images, weight, valid)
    refined = first
    for _ in range(_ROUNDS):
        refined = _evidence(images, torch.sigmoid(prior + refined) * (prior > -4), valid)
    grey = images.mean(1)
    maps = torch.stack([grey, torch.sigmoid(first), torch.sigmoid(prior + refined)], 1)
    return draw_frames(maps, marks)


def _grid(images: Tensor) -> tuple[Tensor, Tensor]:
    place = torch.arange(images.shape[-1], device=images.device, dtype=images.dtype)
    return place[None, None, :], place[None, :, None]


def _box_prior(images: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Log odds of a soft ellipse in the box, and first weights of being inside; nothing is beyond the box."""
    x, y = _grid(images)
    x0, y0, x1, y1 = (boxes[:, n, None, None] for n in range(4))
    radius = torch.hypot((x - (x0 + x1) / 2) / ((x1 - x0 + 1) / 2), (y - (y0 + y1) / 2) / ((y1 - y0 + 1) / 2))
    inside = (x >= x0 - 0.5) & (x <= x1 + 0.5) & (y >= y0 - 0.5) & (y <= y1 + 0.5)
    prior = torch.where(inside, ((1 - radius) * 3).clamp(-3, 3), torch.full_like(radius, -5.0))
    return prior, torch.sigmoid(2 * prior) * inside


def _click_prior(images: Tensor, clicks: Tensor) -> tuple[Tensor, Tensor]:
    x, y = _grid(images)
    size = images.shape[-1]
    distance = torch.hypot(x - clicks[:, 0, None, None], y - clicks[:, 1, None, None]) / size
    prior = 1 - 0.5 * (distance / _CLICK_FAR) ** 2
    return prior.clamp(min=-3), torch.exp(-0.5 * (distance / _CLICK_NEAR) ** 2)


def _evidence(images: Tensor, weight: Tensor, valid: Tensor) -> Tensor:
    """Log ratio of the histograms inside and outside, (B, S, S) in [-3, 3], mean of the channels."""
    count, channels = images.shape[:2]
    flat = images.flatten(2)
    low, high = flat.amin(2, keepdim=True), flat.amax(2, keepdim=True)
    level = ((flat - low) / (high - low).clamp(min=1e-3) * _BINS).long().clamp(max=_BINS - 1)
    seen = valid.flatten(1)[:, None]
    inside = (weight.flatten(1)[:, None] * seen).expand(-1, channels, -1)
    outside = ((1 - weight.flatten(1)[:, None]) * seen).expand(-1, channels, -1)
    kernel = images.new_tensor([0.1, 0.2, 0.4, 0.2, 0.1])[None, None]
    shares = []
    for part in (inside, outside):
        total = images.new_zeros(count, channels, _BINS).scatter_add_(2, level, part.to(images.dtype))
        total = F.conv1d(F.pad(total.flatten(0, 1)[:, None], (2, 2), mode="replicate"), kernel)[:, 0]
        total = total + 0.02 * total.sum(1, keepdim=True) / _BINS + 1e-4
        shares.append((total / total.sum(1, keepdim=True)).unflatten(0, (count, channels)))
    ratio = (shares[0] / shares[1]).log()
    odds = torch.gather(ratio, 2, level).mean(1).clamp(-3, 3)
    side = images.shape[-1]
    return F.avg_pool2d(odds.view(count, 1, side, side), 3, 1, 1, count_include_pad=False)[:, 0]
