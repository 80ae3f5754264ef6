"""Evidence from brightness or colour for each pixel of a window to lie inside the prompted object.

The idea is that of GrabCut (Rother et al., SIGGRAPH 2004) without its graph: histograms of the pixels that
are probably inside and of the rest, refined iteratively. A network that gets this as input need not learn to
compare distant pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from segmed.sam.window import draw_frames

_BINS = 24  # bins per histogram
_ROUNDS = 3  # iterations of weights and histograms
_CLICK_NEAR, _CLICK_FAR = 0.05, 0.25  # standard deviations around a click, as shares of the window


def encode_prompt_channels(
    images: Tensor, valid: Tensor, boxes: Tensor | None, clicks: Tensor | None
) -> Tensor:
    """Encoder inputs of windows: brightness, first and refined evidence, with the prompt drawn in.

    Args:
        images: Windows (B, 3, S, S) with values in [0, 1].
        valid: Boolean (B, S, S), true for pixels that lie on the slice.
        boxes: Boxes (B, 4) as x0, y0, x1, y1 in px of the window, or None to use the clicks.
        clicks: Clicks (B, 2) as x, y in px of the window, inside the object; used without boxes.

    Returns:
        The three channels, (B, 3, S, S).
    """
    # E_0 = log h_in / h_out with weights from the prompt alone; then, in each round, the weight of a pixel
    # becomes sigmoid(prior + E), and E is computed again. Pixels with a prior of -4 or less never count as
    # inside.
    if boxes is None:
        assert clicks is not None
        prior, weight = _click_prior(images, clicks)
        frames = torch.cat([clicks, clicks], 1)
    else:
        prior, weight = _box_prior(images, boxes)
        frames = boxes
    first = _evidence(images, weight, valid)
    refined = first
    for _ in range(_ROUNDS):
        refined = _evidence(images, torch.sigmoid(prior + refined) * (prior > -4), valid)
    grey = images.mean(1)
    maps = torch.stack([grey, torch.sigmoid(first), torch.sigmoid(prior + refined)], 1)
    return draw_frames(maps, frames)


def _grid(images: Tensor) -> tuple[Tensor, Tensor]:
    place = torch.arange(images.shape[-1], device=images.device, dtype=images.dtype)
    return place[None, None, :], place[None, :, None]


def _box_prior(images: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Log odds (B, S, S) of a soft ellipse in each box, and first weights, zero outside of the box.

    With r the distance from the centre in half sides of the box, the log odds are 3 (1 - r), clipped to [-3,
    3].
    """
    x, y = _grid(images)
    x0, y0, x1, y1 = (boxes[:, n, None, None] for n in range(4))
    radius = torch.hypot((x - (x0 + x1) / 2) / ((x1 - x0 + 1) / 2), (y - (y0 + y1) / 2) / ((y1 - y0 + 1) / 2))
    inside = (x >= x0 - 0.5) & (x <= x1 + 0.5) & (y >= y0 - 0.5) & (y <= y1 + 0.5)
    prior = torch.where(inside, ((1 - radius) * 3).clamp(-3, 3), torch.full_like(radius, -5.0))
    return prior, torch.sigmoid(2 * prior) * inside


def _click_prior(images: Tensor, clicks: Tensor) -> tuple[Tensor, Tensor]:
    """Log odds (B, S, S) that fall with the squared distance d from each click, and first weights.

    The log odds are 1 - d² / (2 far²), at least -3, and the weights exp(-d² / (2 near²)).
    """
    x, y = _grid(images)
    size = images.shape[-1]
    distance = torch.hypot(x - clicks[:, 0, None, None], y - clicks[:, 1, None, None]) / size
    prior = 1 - 0.5 * (distance / _CLICK_FAR) ** 2
    return prior.clamp(min=-3), torch.exp(-0.5 * (distance / _CLICK_NEAR) ** 2)


def _evidence(images: Tensor, weight: Tensor, valid: Tensor) -> Tensor:
    """Log ratio of the histograms inside and outside, (B, S, S) in [-3, 3], averaged over the channels.

    Per channel, h(v) = sum of the weights of the pixels with level v, smoothed over neighbouring levels and
    mixed with a uniform share; the evidence of a pixel is log h_in(v) / h_out(v), averaged over 3 × 3 pixels.
    """
    count, channels = images.shape[:2]
    flat = images.flatten(2)
    low, high = flat.amin(2, keepdim=True), flat.amax(2, keepdim=True)
    level = ((flat - low) / (high - low).clamp(min=1e-3) * _BINS).long().clamp(max=_BINS - 1)
    on_slice = valid.flatten(1)[:, None]
    inside = (weight.flatten(1)[:, None] * on_slice).expand(-1, channels, -1)
    outside = ((1 - weight.flatten(1)[:, None]) * on_slice).expand(-1, channels, -1)
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
