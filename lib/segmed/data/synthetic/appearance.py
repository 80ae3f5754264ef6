"""From label maps to brightness or colour: means, textures, gradients, soft borders, low contrast."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from segmed.data.synthetic.canvas import LABELS, Kind
from segmed.data.synthetic.draw import Draw
from segmed.data.synthetic.noise import blur, column, smooth_noise, spectral_noise, wide_blur

Palette = dict[Kind, tuple[float, float]] | dict[Kind, tuple[float, float, float]]


@dataclass(frozen=True)
class Appearance:
    """The strength of each effect; shares and brightness are between 0 and 1.

    Attributes:
        free: share of samples whose regions have any brightness (SynthSeg), whatever they are made of.
        faint: share of samples with low contrast: neighbours differ by about one standard deviation of the
            texture.
        texture: smallest and largest standard deviation of textures.
        soft: smallest and largest width of borders in px.
        fuzzy: share of samples with borders of a few per cent of the side.
        shade: largest slow change of brightness within regions.
        dark: share of samples in which what crosses regions is darker than they are.
    """

    free: float = 0.35
    faint: float = 0.35
    texture: tuple[float, float] = (0.01, 0.09)
    soft: tuple[float, float] = (0.3, 1.2)
    fuzzy: float = 0.2
    shade: float = 0.08
    dark: float = 0.5


def paint_regions(
    draw: Draw, labels: Tensor, kinds: Tensor, palette: Palette, look: Appearance, small: Tensor
) -> Tensor:
    """Brightness (grey palettes: lowest and highest) or colour (colour palettes: red, green, blue) of each
    region.

    Args:
        draw: source of randomness.
        labels: (B, S, S) uint8 up to OUTSIDE, which becomes 0.
        kinds: (B, LABELS) of `Kind`.
        palette: of all kinds.
        look: how much of everything.
        small: (B,) samples whose targets a wide blur would wash away.

    Returns:
        (B, 1 or 3, S, S), not clipped.
    """
    count, size = labels.shape[:2]
    values = torch.tensor([palette[kind] for kind in Kind], device=draw.device)
    means = _colour_means(draw, kinds, values) if values.shape[1] == 3 else _grey_means(draw, kinds, values)
    means = torch.where(draw.chance(look.free, count)[:, None, None], _free_means(draw, kinds, means), means)
    means = _faint(draw, kinds, means, look.faint)
    crossed = means + _crossing_steps(draw, count, means, look.dark)
    spread = draw.log_uniform(*look.texture, count)[:, None, None]
    textures = spread * draw.normal(count, LABELS, 3).mul(0.6).exp() * draw.uniform(0, 1, count, LABELS, 3)
    still = (kinds == Kind.AIR) | (kinds == Kind.GAS)
    textures = torch.where(still[:, :, None], 0.3 * textures, textures)
    shades = look.shade * draw.uniform(-1, 1, count, LABELS, 2)
    table = torch.cat(
        [torch.cat([means, crossed], 1), *[torch.cat([t, t], 1) for t in (textures, shades)]], 2
    )
    table = F.pad(table, (0, 0, 0, 1))
    index = labels.long() + column(torch.arange(count, device=draw.device)) * table.shape[1]
    maps = F.embedding(index, table.flatten(0, 1)).permute(0, 3, 1, 2)
    channels = means.shape[2]
    smooth = _soften(draw, maps[:, :channels], look, small)
    grain = torch.stack(
        [
            spectral_noise(draw, count, size, 0.12, 0.45),
            spectral_noise(draw, count, size, 0.03, 0.12),
            smooth_noise(draw, count, size, 8)[:, 0],
            smooth_noise(draw, count, size, 3)[:, 0],
            smooth_noise(draw, count, size, 4)[:, 0],
        ],
        1,
    )
    detail = (grain * maps[:, channels:]).sum(1, keepdim=True)
    return smooth + detail


def _grey_means(draw: Draw, kinds: Tensor, ranges: Tensor) -> Tensor:
    count = len(kinds)
    likeness = draw.uniform(0.05, 0.6, count, 1)
    place = torch.gather(draw.uniform(0, 1, count, len(ranges)), 1, kinds) + likeness * draw.normal(
        count, LABELS
    )
    low, high = ranges[kinds].unbind(2)
    return (low + (high - low) * place.clamp(-0.2, 1.2)).clamp(0, 1.1)[:, :, None]


def _colour_means(draw: Draw, kinds: Tensor, colours: Tensor) -> Tensor:
    count = len(kinds)
    own = colours + 0.05 * draw.normal(count, *colours.shape)
    means = torch.gather(own, 1, kinds[:, :, None].expand(-1, -1, 3))
    likeness = draw.uniform(0.02, 0.12, count, 1, 1)
    return means * (1 + likeness * draw.normal(count, LABELS, 1)) + 0.2 * likeness * draw.normal(
        count, LABELS, 3
    )


def _free_means(draw: Draw, kinds: Tensor, means: Tensor) -> Tensor:
    """Any brightness; regions of a kind resemble each other, and air stays what it is."""
    count, channels = len(kinds), means.shape[2]
    likeness = draw.uniform(0.02, 0.4, count, 1, 1)
    shared = torch.gather(draw.uniform(0, 1, count, len(Kind), 1), 1, kinds[:, :, None])
    level = (shared + likeness * draw.normal(count, LABELS, 1)).clamp(0, 1)
    if channels == 3:
        level = (0.4 + 0.9 * level) * means
    return torch.where((kinds == Kind.AIR)[:, :, None], means, level)


def _faint(draw: Draw, kinds: Tensor, means: Tensor, share: float) -> Tensor:
    """Pull everything but air, gas and bone towards one brightness."""
    count = len(kinds)
    fixed = (kinds == Kind.AIR) | (kinds == Kind.GAS) | (kinds == Kind.BONE)
    fixed[:, 0] &= kinds[:, 0] == Kind.AIR
    weight = (~fixed).float()[:, :, None]
    middle = (means * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1)
    keep = draw.uniform(0.15, 0.5, count, 1, 1)
    pulled = torch.where(fixed[:, :, None], means, middle + keep * (means - middle))
    return torch.where(draw.chance(share, count)[:, None, None], pulled, means)


def _crossing_steps(draw: Draw, count: int, means: Tensor, dark: float) -> Tensor:
    """What crosses is brighter or darker than each region by some, or has one brightness everywhere."""
    step = (
        draw.uniform(0.06, 0.4, count, 1, 1) * torch.where(draw.chance(dark, count), -1.0, 1.0)[:, None, None]
    )
    common = (
        draw.uniform(0, 1, count, 1, 1) - means
        if means.shape[2] == 1
        else step * means.new_tensor([0.7, 1.0, 0.8])
    )
    return torch.where(draw.chance(0.35, count)[:, None, None], common, step.expand_as(means))


def _soften(draw: Draw, maps: Tensor, look: Appearance, small: Tensor) -> Tensor:
    """Borders with partial volume: narrow ones everywhere, wide ones in some samples, all over or in
    places."""
    count, size = len(maps), maps.shape[-1]
    narrow = blur(maps, draw.uniform(*look.soft, count) * size / 192, 1.5 * max(size / 192, 1))
    wide = wide_blur(maps, draw.log_uniform(0.01, 0.045, count) * size)
    fuzzy = draw.chance(look.fuzzy, count) & ~small
    place = torch.sigmoid(
        6 * (smooth_noise(draw, count, size, 3)[:, 0] + column(draw.uniform(-0.5, 2, count)))
    )
    return torch.lerp(narrow, wide, (place * column(fuzzy))[:, None])
