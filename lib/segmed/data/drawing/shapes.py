"""Outlines as signed fields: below 0 inside, about the distance to the border in units of the picture's side.

Ideas: star-convex shapes with perturbed radius as in AnyStar (Dey et al., 2024), primitives as in PrimGeoSeg (Tadokoro
et al., 2023), tubes and shells as in anatomix (Dey et al., 2025) and SynthFM (Chatterjee et al., 2025).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from segmed.data.drawing.noise import Dice, coordinates, smooth_noise


def place(dice: Dice, count: int, radius: Tensor) -> Tensor:
    """Centres (count, 2) that keep most of a shape of that radius in the picture."""
    room = (1 - 1.6 * radius).clamp(min=0.1)
    return (dice.uniform(count, 2) - 0.5) * room[:, None] + 0.5


def _polar(dice: Dice, centre: Tensor, size: int, stretch: float = 0.6) -> tuple[Tensor, Tensor]:
    """Distance and angle of pixels around centres in turned and stretched axes, (count, size, size) each."""
    count = len(centre)
    x, y = coordinates(count, size, dice.device)
    turn = dice.uniform(count, 1, 1, high=2 * math.pi)
    dx, dy = x - centre[:, 0, None, None], y - centre[:, 1, None, None]
    u, v = dx * turn.cos() + dy * turn.sin(), dy * turn.cos() - dx * turn.sin()
    ratio = 1 - stretch * dice.uniform(count, 1, 1) ** 2
    u, v = u * ratio.sqrt(), v / ratio.sqrt()
    return torch.hypot(u, v), torch.atan2(v, u)


def blob(dice: Dice, centre: Tensor, radius: Tensor, size: int) -> Tensor:
    """Star-convex shape whose radius varies with the angle: smooth organs to lobed lesions."""
    count = len(centre)
    distance, angle = _polar(dice, centre, size)
    rough = dice.uniform(count, 1, 1) ** 2 * 0.6
    wave = torch.zeros_like(distance)
    for k in range(1, 7):
        phase = dice.uniform(count, 1, 1, high=2 * math.pi)
        wave += dice.normal(count, 1, 1) * torch.cos(k * angle + phase) / k
    return distance - radius[:, None, None] * (1 + rough * wave).clamp(0.35, 1.8)


def polygon(dice: Dice, centre: Tensor, radius: Tensor, size: int) -> Tensor:
    """Convex polygon of 3 to 8 sides with rounded corners."""
    count, sides = len(centre), 8
    x, y = coordinates(count, size, dice.device)
    corners = dice.integer(count, 1, low=3, high=8)
    side = torch.arange(sides, device=dice.device)[None]
    angle = (side % corners) * 2 * math.pi / corners + dice.uniform(count, 1, high=6.3)
    angle = angle + dice.normal(count, sides) * 0.15
    reach = radius[:, None] * dice.uniform(count, sides, low=0.6)
    planes = [
        (x - centre[:, 0, None, None]) * angle[:, n, None, None].cos()
        + (y - centre[:, 1, None, None]) * angle[:, n, None, None].sin()
        - reach[:, n, None, None]
        for n in range(sides)
    ]
    sharpness = 25.0 / radius[:, None, None]
    return torch.logsumexp(torch.stack(planes) * sharpness, 0) / sharpness


def tube(dice: Dice, centre: Tensor, radius: Tensor, size: int) -> Tensor:
    """A winding band of varying width."""
    count, knots = len(centre), 10
    x, y = coordinates(count, size, dice.device)
    bend = dice.uniform(count, 1, low=0.1, high=0.7)
    heading = (dice.normal(count, knots) * bend).cumsum(1) + dice.uniform(count, 1, high=6.3)
    step = radius[:, None] * 0.42
    points = torch.stack([(heading.cos() * step).cumsum(1), (heading.sin() * step).cumsum(1)], -1)
    points = points - points.mean(1, keepdim=True) + centre[:, None]
    width = radius[:, None] * dice.uniform(count, 1, low=0.08, high=0.3)
    width = width * (1 + 0.3 * dice.normal(count, knots)).clamp(0.5, 1.6)
    field = torch.full_like(x, 9.0)
    for n in range(knots - 1):
        a, b = points[:, n, :, None, None], points[:, n + 1, :, None, None]
        along = b - a
        t = ((x - a[:, 0]) * along[:, 0] + (y - a[:, 1]) * along[:, 1]) / along.square().sum(1).clamp(min=1e-8)
        t = t.clamp(0, 1)
        distance = torch.hypot(x - a[:, 0] - t * along[:, 0], y - a[:, 1] - t * along[:, 1])
        thick = width[:, n, None, None] * (1 - t) + width[:, n + 1, None, None] * t
        field = torch.minimum(field, distance - thick)
    return field


def shell(dice: Dice, centre: Tensor, radius: Tensor, size: int) -> Tensor:
    """A ring, or a crescent where the hole lies off the middle."""
    count = len(centre)
    outer = blob(dice, centre, radius, size)
    crescent = dice.chance(count, share=0.4)
    inner = radius * torch.where(
        crescent, dice.uniform(count, low=0.6, high=0.9), dice.uniform(count, low=0.4, high=0.8)
    )
    shift = radius * torch.where(crescent, dice.uniform(count, low=0.3, high=0.6), dice.uniform(count, high=0.12))
    angle = dice.uniform(count, high=6.3)
    hole = centre + shift[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
    distance, _ = _polar(dice, hole, size, stretch=0.3)
    return torch.maximum(outer, inner[:, None, None] - distance)


def patch(dice: Dice, centre: Tensor, radius: Tensor, size: int) -> Tensor:
    """A piece of a warped noise field near the centre: ragged and many-armed shapes."""
    noise = smooth_noise(dice, len(centre), 1, size, 7)[:, 0]
    distance, _ = _polar(dice, centre, size)
    return distance - radius[:, None, None] * (0.75 + 0.35 * noise).clamp(0.1, 1.6)


SHAPES = {"blob": blob, "polygon": polygon, "tube": tube, "shell": shell, "patch": patch}
