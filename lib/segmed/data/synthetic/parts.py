"""What is laid over any label map: tiny targets, structures that cross regions, the field of view; then the
targets."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from segmed.data.synthetic.canvas import LABELS, OUTSIDE, TINY, Kind
from segmed.data.synthetic.draw import Draw
from segmed.data.synthetic.noise import column, octave_noise, pixel_grid, smooth_noise
from segmed.data.synthetic.shapes import ellipse

TINY_AREA = (0.0005, 0.01)  # share of the picture


def add_tiny(draw: Draw, labels: Tensor, kinds: Tensor, chosen: Tensor) -> None:
    """Paint one small round or oblong thing into the chosen samples, inside a body where there is one.

    Args:
        draw: source of randomness.
        labels: (B, S, S) uint8, changed in place.
        kinds: (B, LABELS), changed in place.
        chosen: (B,) boolean.
    """
    count, size = labels.shape[:2]
    x, y = pixel_grid(size, labels.device)
    coarse = F.avg_pool2d((labels > 0).float()[:, None], max(size // 16, 1))[:, 0, 1:-1, 1:-1]
    side = coarse.shape[-1]
    score = (coarse.flatten(1) > 0.5) * 0.7 + draw.uniform(0, 1, count, side * side)
    place = score.argmax(1)
    centre = (torch.stack([place % side, place // side], 1) + 1 + draw.uniform(0, 1, count, 2)) / (side + 2)
    # kept off the ends of the range, which pixels and a perturbed border would cross
    area = draw.log_uniform(TINY_AREA[0] * 1.3, TINY_AREA[1] * 0.8, count)
    radius, longer = (area / math.pi).sqrt(), draw.log_uniform(0.7, 1.4, count)
    radii = torch.stack([radius * longer, radius / longer], 1)
    angle = draw.uniform(0, math.pi, count)
    field = ellipse((x, y), centre, radii, angle)
    field = field + 0.12 * smooth_noise(draw, count, size, 24)[:, 0]
    labels.masked_fill_((field < 1) & column(chosen), TINY)
    kinds[:, TINY] = torch.tensor([Kind.LESION, Kind.FLUID, Kind.CORE, Kind.ORGAN], device=labels.device)[
        draw.integers(0, 4, count)
    ]


def add_crossings(draw: Draw, labels: Tensor, chosen: Tensor) -> None:
    """Mark what crosses regions without bounding them: vessels, septa, granules, holes. Adds LABELS to their
    pixels.

    The mark keeps the region below it known, so that a target stays the union of the region and what crosses
    it.

    Args:
        draw: source of randomness.
        labels: (B, S, S) uint8 below LABELS, changed in place.
        chosen: (B,) boolean.
    """
    count, size = labels.shape[:2]
    course = octave_noise(draw, count, size, (5, 9, 20), draw.uniform(0.2, 0.7, count))
    there = smooth_noise(draw, count, size, 4)[:, 0]
    width = column(draw.log_uniform(0.03, 0.16, count)) * (0.5 + there).clamp(min=0)
    lines = course.abs() < width
    grains = octave_noise(draw, count, size, (16, 36, 60), draw.uniform(0.6, 1.4, count))
    spots = grains > column(draw.uniform(1.2, 2.4, count))
    both = draw.integers(0, 3, count)
    mark = torch.where(column(both == 0), lines, torch.where(column(both == 1), spots, lines | spots))
    mark &= column(chosen) & (labels != TINY) & ((labels > 0) | column(draw.chance(0.3, count)))
    labels += mark * LABELS


def limit_view(draw: Draw, labels: Tensor, fans: Tensor, discs: Tensor, frames: Tensor) -> None:
    """Cut the samples to what a transducer, a lens or a collimator shows; the rest becomes OUTSIDE.

    Args:
        draw: source of randomness.
        labels: (B, S, S) uint8, changed in place.
        fans: (B,) samples seen by a convex or sector transducer at the top.
        discs: (B,) samples seen through a round lens.
        frames: (B,) samples with dark margins.
    """
    count, size = labels.shape[:2]
    x, y = pixel_grid(size, labels.device)
    apex, reach = column(draw.uniform(-0.45, 0.02, count)), column(draw.uniform(0.85, 1.0, count))
    dx, dy = x - column(draw.uniform(0.44, 0.56, count)), y - apex
    radius = (dx**2 + dy**2).sqrt()
    spread = column(draw.uniform(0.5, 1.1, count))
    fan = (radius < reach - apex) & (radius > 0.03 - 0.9 * apex) & (dx.abs() < spread * dy)
    radii = draw.uniform(0.46, 0.62, count, 1).expand(-1, 2)
    disc = ellipse((x, y), 0.5 + draw.uniform(-0.02, 0.02, count, 2), radii, apex[:, 0, 0])
    margins = draw.uniform(-0.12, 0.22, count, 4)
    left, right, top, bottom = (column(m) for m in margins.unbind(1))
    frame = (x > left) & (x < 1 - right) & (y > top) & (y < 1 - bottom)
    shown = (fan | column(~fans)) & ((disc < 1) | column(~discs)) & (frame | column(~frames))
    labels.masked_fill_(~shown, OUTSIDE)


def choose_targets(
    draw: Draw, labels: Tensor, members: Tensor, weights: Tensor, tiny: Tensor, targets: int
) -> tuple[Tensor, Tensor]:
    """Pick targets among the candidates that a sample shows.

    Args:
        draw: source of randomness.
        labels: (B, S, S) uint8 up to OUTSIDE.
        members: (B, C, LABELS) boolean.
        weights: (B, C); 0 is never picked while something else is there.
        tiny: (B,) samples in which TINY comes first.
        targets: how many, K.

    Returns:
        masks (B, K, S, S) boolean and which of them are targets, (B, K); at least the first one always is.
    """
    count, size = labels.shape[:2]
    index = labels.flatten(1).long()
    flat = (index + (OUTSIDE + 1) * torch.arange(count, device=labels.device)[:, None]).flatten()
    areas = torch.zeros(count * (OUTSIDE + 1), device=labels.device)
    areas = areas.scatter_add_(0, flat, torch.ones_like(flat, dtype=torch.float32)).view(count, -1)
    alone = torch.zeros(count, 1, LABELS, dtype=torch.bool, device=labels.device)
    alone[:, :, TINY] = True
    rest = torch.zeros_like(alone)
    rest[:, 0] = True  # what is left when nothing else is shown
    rest[:, 0, TINY] = False
    members = torch.cat([alone, members, rest], 1)
    per_label = areas[:, :LABELS] + areas[:, LABELS:OUTSIDE]
    share = (members * per_label[:, None]).sum(2) / size**2
    weights = torch.cat([tiny[:, None] * 1e6, weights, torch.full_like(weights[:, :1], 1e-12)], 1)
    fits = (share * size**2 >= 8) & (share >= TINY_AREA[0]) & (share < 0.75)
    chance = weights.clamp(min=1e-20).log() - draw.uniform(1e-6, 1, *weights.shape).log().neg().log()
    order = torch.where(fits & (weights > 1e-13), chance, -1e4)
    order[:, -1] = order[:, -1].clamp(min=-9e3)
    best, picked = order.topk(targets, 1)
    valid = (best > -50) & (picked < members.shape[1] - 1)
    valid[:, 0] = True
    chosen = torch.gather(members, 1, picked[:, :, None].expand(-1, -1, LABELS))
    bits = (chosen * (1 << torch.arange(targets, device=labels.device))[None, :, None]).sum(1)
    bits = F.pad(torch.cat([bits, bits], 1), (0, 1))
    code = torch.gather(bits, 1, index).view(count, 1, size, size)
    masks = (code >> torch.arange(targets, device=labels.device)[None, :, None, None]) & 1
    masks = masks.bool() & valid[:, :, None, None]
    return masks, valid


def keep_main_part(masks: Tensor, side: int = 48, steps: int = 40) -> Tensor:
    """Of masks (N, S, S) in pieces, the pixels near the piece that holds the largest inscribed square.

    A flood on a coarse grid, as labelling components is out of reach of tensor operations. What lies further
    from the seed than the flood runs is left out.
    """
    size = masks.shape[-1]
    coarse = F.adaptive_max_pool2d(masks.float()[:, None], min(side, size))
    depth = coarse
    total = coarse
    for _ in range(4):
        depth = -F.max_pool2d(-depth, 3, 1, 1)
        total = total + depth
    seed = total.flatten(1).argmax(1)
    flood = torch.zeros_like(coarse).flatten(1).scatter_(1, seed[:, None], 1.0).view_as(coarse) * coarse
    for _ in range(steps):
        flood = F.max_pool2d(flood, 3, 1, 1) * coarse
    return masks & (F.interpolate(flood, size, mode="nearest")[:, 0] > 0)
