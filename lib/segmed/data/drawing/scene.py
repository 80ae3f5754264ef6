"""A picture of grey values: background, many objects with inner structure, and which pixels each one shows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from segmed.data.drawing.noise import Dice, smooth_noise, texture
from segmed.data.drawing.shapes import SHAPES, blob, place, tube


@dataclass(frozen=True)
class Scene:
    """Grey pictures and their objects.

    Attributes:
        grey: (B, S, S), about [0, 1].
        masks: (B, N, S, S) boolean, the visible pixels of each object, its parts included.
        depth: (B, S, S), how many objects lie over each other, for projections.
    """

    grey: Tensor
    masks: Tensor
    depth: Tensor


def backdrop(dice: Dice, count: int, size: int) -> Tensor:
    """Plain, cloudy or patchy grounds, some with a body in front of air: (count, size, size)."""
    base = dice.uniform(count, 1, 1, low=0.05, high=0.8)
    clouds = base + 0.12 * dice.uniform(count, 1, 1) * texture(dice, count, size)
    regions = smooth_noise(dice, count, 5, size, 6).argmax(1)
    greys = dice.uniform(count, 5, low=0.0, high=0.9)
    patchy = greys.gather(1, regions.flatten(1)).view(count, size, size)
    ground = torch.where(dice.chance(count, 1, 1, share=0.4), patchy, clouds)
    body = (
        blob(dice, torch.full((count, 2), 0.5, device=dice.device), dice.uniform(count, low=0.34, high=0.5), size) < 0
    )
    air = dice.uniform(count, 1, 1, high=0.12)
    return torch.where(dice.chance(count, 1, 1, share=0.35) & ~body, air, ground)


def draw_scene(dice: Dice, count: int, size: int, kinds: tuple[str, ...], objects: int = 9) -> Scene:
    """Paint objects one over the other.

    A fifth of the objects is tiny (0.05 to 1 % of the picture), a quarter is painted against the one before so that
    both touch, a third hardly differs from what lies under it, and half have parts of other brightness that belong to
    them: cores, rims, crossing vessels.

    Args:
        dice: source of randomness.
        count: pictures.
        size: side in px.
        kinds: names out of `SHAPES` for the objects.
        objects: per picture.
    """
    grey = backdrop(dice, count, size)
    masks = torch.zeros(count, objects, size, size, dtype=torch.bool, device=dice.device)
    depth = torch.zeros_like(grey)
    centre = place(dice, count, dice.uniform(count, low=0.05, high=0.2))
    for n in range(objects):
        tiny = dice.chance(count, share=0.25)
        radius = torch.where(tiny, dice.uniform(count, low=0.013, high=0.055), 0.06 + 0.24 * dice.uniform(count) ** 1.5)
        angle = dice.uniform(count, high=6.3)
        beside = centre + 1.7 * radius[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
        centre = torch.where(dice.chance(count, 1, share=0.3), beside.clamp(0.05, 0.95), place(dice, count, radius))
        kind = dice.integer(count, low=0, high=len(kinds) - 1)
        field = torch.empty_like(grey)
        for index, name in enumerate(kinds):
            rows = (kind == index).nonzero()[:, 0]
            if len(rows):
                field[rows] = SHAPES[name](dice, centre[rows], radius[rows], size)
        inside = field < 0
        here = (grey * inside).sum((1, 2)) / inside.sum((1, 2)).clamp(min=1)
        content = _content(dice, here, field, centre, radius, size)
        soft = torch.where(dice.chance(count, share=0.3), dice.uniform(count, low=0.004, high=0.03), 0.002)
        alpha = torch.sigmoid(-field / (soft * (0.3 + radius / 0.2))[:, None, None])
        grey = grey * (1 - alpha) + content * alpha
        depth = depth + alpha * radius[:, None, None]
        masks[:, :n] &= ~inside[:, None]
        masks[:, n] = inside
    return Scene(grey, masks, depth)


def _content(dice: Dice, here: Tensor, field: Tensor, centre: Tensor, radius: Tensor, size: int) -> Tensor:
    """What an object looks like inside: (B, S, S)."""
    count = len(here)
    contrast = torch.where(
        dice.chance(count, share=0.35),
        dice.uniform(count, low=0.04, high=0.12),
        dice.uniform(count, low=0.12, high=0.5),
    )
    sign = torch.where(dice.chance(count, share=0.5), 1.0, -1.0)
    sign = torch.where((here > 0.75) & (sign > 0), -sign, torch.where((here < 0.2) & (sign < 0), -sign, sign))
    mean = (here + sign * contrast)[:, None, None]
    grain = dice.uniform(count, 1, 1, high=0.09) * texture(dice, count, size)
    slope = 0.08 * dice.normal(count, 1, 1) * smooth_noise(dice, count, 1, size, 2)[:, 0]
    content = mean + grain + slope
    step = dice.normal(count, 1, 1) * 0.2
    # a core or a rim of another brightness
    share = dice.uniform(count, 1, 1, low=0.15, high=0.7)
    core = field < -share * radius[:, None, None]
    rim = field > -0.25 * share * radius[:, None, None]
    layer = torch.where(dice.chance(count, 1, 1, share=0.5), core, rim)
    content = torch.where(layer & dice.chance(count, 1, 1, share=0.35), content + step, content)
    # vessels and spots that cross it
    crossing = tube(dice, centre, radius * 1.4, size) < 0
    content = torch.where(crossing & dice.chance(count, 1, 1, share=0.25), content - step, content)
    spots = smooth_noise(dice, count, 1, size, max(8, size // 8))[:, 0] > 1.2
    return torch.where(spots & dice.chance(count, 1, 1, share=0.2), content + 0.7 * step, content)
