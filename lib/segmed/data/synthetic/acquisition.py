"""What happens to any picture on its way to the screen: resolution, blur, sharpening, curves, 8 bit,
orientation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from segmed.data.synthetic.draw import Draw
from segmed.data.synthetic.noise import blur

GROUPS = 6  # resolutions in one batch


def limit_resolution(draw: Draw, images: Tensor, small: Tensor) -> Tensor:
    """Sample coarsely and resample to the grid, with thick slices in half of the cases; SynthSeg calls this
    crucial.

    Args:
        draw: source of randomness.
        images: (B, C, S, S)
        small: (B,) samples that keep at least half of their resolution.
    """
    size = images.shape[-1]
    coarse = 1 / draw.log_uniform(1.2, 4, GROUPS)
    thick = torch.where(draw.chance(0.4, GROUPS), 1 / draw.log_uniform(1.2, 3, GROUPS), 1.0)
    rows, columns = (coarse * thick).tolist(), coarse.tolist()
    out = images.clone()
    plain = draw.chance(0.45, len(images))
    for group in range(GROUPS):
        part, tiny = images[group::GROUPS], small[group::GROUPS, None, None, None]
        grid = (max(round(size * rows[group]), 12), max(round(size * columns[group]), 12))
        mode = ("bilinear", "bicubic", "nearest")[group % 3]
        seen = F.interpolate(part, grid, mode="bilinear", antialias=True, align_corners=False)
        smooth = {} if mode == "nearest" else {"align_corners": False}
        shown = F.interpolate(seen, size, mode=mode, **smooth)  # type: ignore[arg-type]
        keep = plain[group::GROUPS, None, None, None] | (tiny & (min(grid) < 0.5 * size))
        out[group::GROUPS] = torch.where(keep, part, shown)
    return out


def develop(draw: Draw, images: Tensor, outside: Tensor, small: Tensor, invertible: Tensor) -> Tensor:
    """Blur, unsharp masking, contrast, gamma, inversion, quantisation to 8 bit.

    Args:
        draw: source of randomness.
        images: (B, 3, S, S), about [0, 1].
        outside: (B, S, S) pixels beyond the field of view, which stay black or white.
        small: (B,) samples that are blurred little.
        invertible: (B,) samples that may be shown with black and white exchanged.

    Returns:
        (B, 3, S, S) in [0, 1].
    """
    count, size = len(images), images.shape[-1]

    def each(values: Tensor) -> Tensor:
        return values[:, None, None, None]

    scale = max(size / 192, 0.7)
    sigma = torch.where(draw.chance(0.5, count), 0.05, draw.log_uniform(0.3, 1.6, count) * scale)
    sigma = torch.where(small, sigma.clamp(max=0.7), sigma)
    soft = blur(images, sigma, 1.6 * scale)
    sharp = each(torch.where(draw.chance(0.2, count), draw.uniform(0.5, 2.0, count), 0.0))
    images = torch.where(sharp > 0, images + sharp * (images - soft), soft)
    middle, gain = images.mean((1, 2, 3), keepdim=True), each(draw.log_uniform(0.6, 1.3, count))
    shift = each(0.08 * draw.normal(count))
    changed = draw.chance(0.5, count)
    images = torch.where(each(changed), middle + gain * (images - middle) + shift, images)
    stretched = images - images.amin((1, 2, 3), keepdim=True)
    stretched = stretched / stretched.amax((1, 2, 3), keepdim=True).clamp(min=0.05)
    images = torch.where(each(draw.chance(0.4, count)), stretched, images).clamp(0, 1)
    images = images ** each(torch.where(draw.chance(0.5, count), draw.log_uniform(0.55, 1.8, count), 1.0))
    images = torch.where(each(draw.chance(0.15, count) & invertible), 1 - images, images)
    edge = each(torch.where(draw.chance(0.85, count), 0.0, draw.uniform(0, 1, count)))
    images = torch.where(outside[:, None], edge, images)
    return (images * 255).round() / 255


def orient(draw: Draw, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Flip, and turn by right angles, pictures and targets together."""
    count = len(images)
    for change in (lambda t: t.flip(3), lambda t: t.flip(2), lambda t: t.transpose(2, 3)):
        chosen = draw.chance(0.4, count)[:, None, None, None]
        images, targets = (torch.where(chosen, change(t), t) for t in (images, targets))
    return images, targets
