"""Distance fields of simple shapes, one shape per sample at a time: 1 (or 0) is the border, less is
inside."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from segmed.data.synthetic.draw import Draw
from segmed.data.synthetic.noise import column

Grid = tuple[Tensor, Tensor]


def local_frame(at: Grid, centre: Tensor, radii: Tensor, angle: Tensor) -> Grid:
    """Coordinates in units of the radii, about the centre and along the axes of a shape.

    Args:
        at: x and y, (B, S, S) each.
        centre: (B, 2)
        radii: (B, 2)
        angle: (B,) radians.
    """
    dx, dy = at[0] - column(centre[:, 0]), at[1] - column(centre[:, 1])
    cos, sin = angle.cos(), angle.sin()
    u = dx * column(cos / radii[:, 0]) + dy * column(sin / radii[:, 0])
    v = dy * column(cos / radii[:, 1]) - dx * column(sin / radii[:, 1])
    return u, v


def ellipse(at: Grid, centre: Tensor, radii: Tensor, angle: Tensor) -> Tensor:
    """Normalised radius, (B, S, S): 1 on the ellipse."""
    u, v = local_frame(at, centre, radii, angle)
    return (u * u + v * v).sqrt()


def superellipse(at: Grid, centre: Tensor, radii: Tensor, angle: Tensor, power: Tensor) -> Tensor:
    """Normalised radius of a diamond (power 1), ellipse (2), rounded (4) or plain rectangle (10 and more)."""
    u, v = local_frame(at, centre, radii, angle)
    p = column(power)
    return (u.abs().clamp(1e-4, 9) ** p + v.abs().clamp(1e-4, 9) ** p) ** (1 / p)


def polygon(at: Grid, centre: Tensor, radii: Tensor, angle: Tensor, sides: Tensor, uneven: Tensor) -> Tensor:
    """Normalised radius of a convex polygon of 3 to 9 sides (PrimGeoSeg's cross-sections).

    Args:
        at: x and y.
        centre: (B, 2)
        radii: (B, 2)
        angle: (B,)
        sides: (B,) number of sides.
        uneven: (B, 9) shift of each side, in radii.
    """
    u, v = local_frame(at, centre, radii, angle)
    field = torch.full_like(u, -1.0)
    for side in range(9):
        # samples with fewer sides see their first ones again
        place = 2 * math.pi * (side % sides) / sides
        reach = 0.8 + torch.gather(uneven, 1, (side % sides)[:, None])[:, 0]
        field = torch.maximum(field, u * column(place.cos() / reach) + v * column(place.sin() / reach))
    return field


def capsule(at: Grid, start: Tensor, end: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """Signed distance, (B, S, S), to a segment whose radius goes from `first` to `last`, (B,) each."""
    along = end - start
    length = (along * along).sum(1).clamp(min=1e-8)
    dx, dy = at[0] - column(start[:, 0]), at[1] - column(start[:, 1])
    t = (dx * column(along[:, 0] / length) + dy * column(along[:, 1] / length)).clamp(0, 1)
    dx, dy = dx - t * column(along[:, 0]), dy - t * column(along[:, 1])
    return (dx * dx + dy * dy).sqrt() - column(first) - t * column(last - first)


def tube(at: Grid, points: Tensor, radius: Tensor) -> Tensor:
    """Signed distance, (B, S, S), to a curve through points (B, M, 2) with radius (B, M)."""
    field = capsule(at, points[:, 0], points[:, 1], radius[:, 0], radius[:, 1])
    for m in range(1, points.shape[1] - 1):
        part = capsule(at, points[:, m], points[:, m + 1], radius[:, m], radius[:, m + 1])
        field = torch.minimum(field, part)
    return field


def wander(draw: Draw, start: Tensor, steps: int, length: Tensor, heading: Tensor, curl: float) -> Tensor:
    """Points (B, steps + 1, 2) of a smooth random walk.

    Args:
        draw: source of randomness.
        start: (B, 2)
        steps: segments.
        length: (B,) of the whole walk.
        heading: (B,) first direction, radians.
        curl: standard deviation of the change of direction per step, radians.
    """
    bends = curl * draw.normal(len(start), steps)
    bends = bends + 0.7 * torch.nn.functional.pad(bends, (1, 0))[:, :-1]  # one bend leads into the next
    so_far = torch.ones(steps, steps, device=draw.device).tril()  # sums in one order on every device
    turned = heading[:, None] + (bends[:, None] * so_far).sum(2)
    step = torch.stack([turned.cos(), turned.sin()], 2) * (length / steps)[:, None, None]
    walked = (step[:, None] * so_far[:, :, None]).sum(2)
    return torch.cat([start[:, None], start[:, None] + walked], 1)


def smooth_union(fields: list[Tensor], sharpness: float = 40.0) -> Tensor:
    """Signed distances (B, S, S) each, melted into one where they meet."""
    total = -sharpness * fields[0]
    for field in fields[1:]:
        total = torch.logaddexp(total, -sharpness * field)
    return -total / sharpness
