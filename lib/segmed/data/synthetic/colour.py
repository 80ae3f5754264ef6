"""Colour modalities: endoscopy, dermoscopy, fundus, fluorescence and bright-field microscopy, as (B, 3, S,
S)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from segmed.data.synthetic.appearance import Appearance, Palette, paint_regions
from segmed.data.synthetic.canvas import OUTSIDE, Kind
from segmed.data.synthetic.draw import Draw
from segmed.data.synthetic.noise import column, octave_noise, pixel_grid, smooth_noise, wide_blur
from segmed.data.synthetic.shapes import ellipse

MUCOSA: Palette = {
    Kind.AIR: (0.25, 0.1, 0.08),
    Kind.TISSUE: (0.75, 0.42, 0.36),
    Kind.FAT: (0.85, 0.65, 0.4),
    Kind.BONE: (0.9, 0.8, 0.7),
    Kind.ORGAN: (0.8, 0.4, 0.35),
    Kind.FLUID: (0.55, 0.12, 0.1),
    Kind.GAS: (0.2, 0.08, 0.06),
    Kind.LESION: (0.78, 0.35, 0.28),
    Kind.CORE: (0.85, 0.55, 0.45),
    Kind.RIM: (0.7, 0.25, 0.22),
    Kind.NUCLEUS: (0.6, 0.25, 0.25),
    Kind.CYTOPLASM: (0.8, 0.5, 0.42),
}
SKIN: Palette = {
    Kind.AIR: (0.85, 0.7, 0.62),
    Kind.TISSUE: (0.8, 0.62, 0.55),
    Kind.FAT: (0.85, 0.7, 0.55),
    Kind.BONE: (0.92, 0.85, 0.8),
    Kind.ORGAN: (0.55, 0.36, 0.28),
    Kind.FLUID: (0.62, 0.25, 0.25),
    Kind.GAS: (0.35, 0.25, 0.22),
    Kind.LESION: (0.5, 0.33, 0.26),
    Kind.CORE: (0.28, 0.17, 0.14),
    Kind.RIM: (0.6, 0.42, 0.33),
    Kind.NUCLEUS: (0.3, 0.2, 0.18),
    Kind.CYTOPLASM: (0.6, 0.45, 0.36),
}
RETINA: Palette = {
    Kind.AIR: (0.45, 0.2, 0.08),
    Kind.TISSUE: (0.72, 0.33, 0.13),
    Kind.FAT: (0.8, 0.5, 0.25),
    Kind.BONE: (0.95, 0.85, 0.55),
    Kind.ORGAN: (0.9, 0.6, 0.3),
    Kind.FLUID: (0.45, 0.12, 0.06),
    Kind.GAS: (0.3, 0.1, 0.05),
    Kind.LESION: (0.9, 0.75, 0.4),
    Kind.CORE: (0.98, 0.85, 0.6),
    Kind.RIM: (0.5, 0.2, 0.08),
    Kind.NUCLEUS: (0.45, 0.12, 0.05),
    Kind.CYTOPLASM: (0.85, 0.55, 0.3),
}
GLOW: Palette = {
    Kind.AIR: (0.0, 0.06),
    Kind.TISSUE: (0.02, 0.15),
    Kind.FAT: (0.02, 0.3),
    Kind.BONE: (0.3, 1.0),
    Kind.ORGAN: (0.2, 0.8),
    Kind.FLUID: (0.1, 0.6),
    Kind.GAS: (0.0, 0.08),
    Kind.LESION: (0.2, 0.9),
    Kind.CORE: (0.3, 1.0),
    Kind.RIM: (0.3, 1.0),
    Kind.NUCLEUS: (0.3, 1.0),
    Kind.CYTOPLASM: (0.15, 0.5),
}
STAIN: Palette = {
    Kind.AIR: (0.95, 0.94, 0.95),
    Kind.TISSUE: (0.88, 0.72, 0.82),
    Kind.FAT: (0.96, 0.93, 0.95),
    Kind.BONE: (0.8, 0.5, 0.65),
    Kind.ORGAN: (0.8, 0.58, 0.74),
    Kind.FLUID: (0.85, 0.4, 0.45),
    Kind.GAS: (0.97, 0.97, 0.97),
    Kind.LESION: (0.62, 0.42, 0.68),
    Kind.CORE: (0.45, 0.25, 0.55),
    Kind.RIM: (0.65, 0.4, 0.65),
    Kind.NUCLEUS: (0.36, 0.2, 0.52),
    Kind.CYTOPLASM: (0.78, 0.66, 0.82),
}


def show_endoscopy(draw: Draw, labels: Tensor, kinds: Tensor, small: Tensor) -> Tensor:
    """Mucosa under a lamp: folds and bulging things shaded by their slope, wet highlights, dark rim and
    lumen."""
    count, size = labels.shape[:2]
    look = Appearance(free=0.15, faint=0.6, texture=(0.01, 0.05), soft=(0.5, 2.0), fuzzy=0.3)
    image = paint_regions(draw, labels, kinds, MUCOSA, look, small)
    things = ((labels > 0) & (labels < OUTSIDE)).float()
    bulge = wide_blur(things[:, None], draw.uniform(0.015, 0.05, count) * size)[:, 0]
    height = column(draw.uniform(0, 2.5, count)) * bulge + 0.5 * octave_noise(
        draw, count, size, (3, 6, 14), 0.4
    )
    down, right = (F.pad(height, p, mode="replicate") for p in ((0, 0, 1, 1), (1, 1, 0, 0)))
    slope_y, slope_x = (
        (down[:, 2:] - down[:, :-2]) * size / 24,
        (right[:, :, 2:] - right[:, :, :-2]) * size / 24,
    )
    turn = draw.uniform(0, 2 * math.pi, count)
    light = 1 + column(draw.uniform(0.05, 0.3, count)) * (
        slope_x * column(turn.cos()) + slope_y * column(turn.sin())
    )
    x, y = pixel_grid(size, draw.device)
    lamp = draw.uniform(0.25, 0.75, count, 2)
    far = ((x - column(lamp[:, 0])) ** 2 + (y - column(lamp[:, 1])) ** 2).sqrt()
    light = light.clamp(0.2, 1.7) * (1.2 - column(draw.uniform(0.3, 1.2, count)) * far)
    image = image * light[:, None].clamp(min=0.03)
    wet = octave_noise(draw, count, size, (14, 30, 60), 0.9) + 0.8 * (light - 1)
    shine = torch.sigmoid(14 * (wet - column(draw.uniform(1.7, 3.2, count))))
    image = image + shine[:, None] * column(draw.uniform(0.3, 0.9, count))[:, None]
    return _finish(draw, image, labels)


def show_dermoscopy(draw: Draw, labels: Tensor, kinds: Tensor, small: Tensor) -> Tensor:
    """Skin under a lens: brown things with fading borders, a pigment network, hairs, a darker rim."""
    count, size = labels.shape[:2]
    look = Appearance(free=0.1, faint=0.35, texture=(0.01, 0.06), soft=(0.8, 3.0), fuzzy=0.7, shade=0.12)
    image = paint_regions(draw, labels, kinds, SKIN, look, small)
    tone = draw.uniform(-0.6, 0.05, count, 1).exp() * (1 + 0.06 * draw.normal(count, 3))
    image = image * tone[:, :, None, None].clamp(0.5, 1.15)
    net = octave_noise(draw, count, size, (28, 50), 0.7).abs()
    things = wide_blur(((labels > 0) & (labels < OUTSIDE)).float()[:, None], 0 * tone[:, 0] + 0.02 * size)
    image = image - column(draw.uniform(-0.05, 0.1, count))[:, None] * (0.6 - net)[:, None] * things
    image = image * (1 - _hairs(draw, count, size)[:, None] * column(draw.uniform(0.4, 0.9, count))[:, None])
    x, y = pixel_grid(size, draw.device)
    far = ((x - 0.5) ** 2 + (y - 0.5) ** 2).sqrt()
    image = image * (1 - column(draw.uniform(0, 0.9, count)) * (far - 0.35).clamp(min=0))[:, None]
    return _finish(draw, image, labels)


def _hairs(draw: Draw, count: int, size: int) -> Tensor:
    """Thin dark arcs across the picture in half of the samples, (B, S, S) in [0, 1]."""
    x, y = pixel_grid(size, draw.device)
    total = torch.zeros(count, size, size, device=draw.device)
    many = torch.where(draw.chance(0.5, count), 0, draw.integers(1, 9, count))
    for hair in range(8):
        turn, off = column(draw.uniform(0, math.pi, count)), column(draw.uniform(-0.6, 0.6, count))
        u = (x - 0.5) * turn.cos() + (y - 0.5) * turn.sin()
        v = (y - 0.5) * turn.cos() - (x - 0.5) * turn.sin() - off
        v = v - column(draw.uniform(-0.8, 0.8, count)) * u * u
        width = column(draw.uniform(0.002, 0.006, count))
        dark = torch.exp(-((v / width) ** 2)) * (u.abs() < column(draw.uniform(0.15, 0.8, count)))
        total = torch.maximum(total, dark * column(hair < many))
    return total


def show_fundus(draw: Draw, labels: Tensor, kinds: Tensor, small: Tensor) -> Tensor:
    """A retina: orange ground with choroidal stripes, red vessels, a pale disc, light falling off to the
    rim."""
    count, size = labels.shape[:2]
    look = Appearance(
        free=0.05, faint=0.25, texture=(0.005, 0.04), soft=(0.6, 2.0), fuzzy=0.3, shade=0.1, dark=0.95
    )
    image = paint_regions(draw, labels, kinds, RETINA, look, small)
    stripes = octave_noise(draw, count, size, (8, 16), 0.7).abs()
    image = image + column(draw.uniform(0, 0.08, count))[:, None] * (0.7 - stripes)[:, None]
    centre = draw.uniform(0.3, 0.7, count, 2)
    x, y = pixel_grid(size, draw.device)
    far = ellipse((x, y), centre, torch.ones_like(centre), centre[:, 0])
    image = image * (1.1 - column(draw.uniform(0.1, 1.2, count)) * far**2)[:, None].clamp(min=0.1)
    return _finish(draw, image, labels)


def show_fluorescence(draw: Draw, labels: Tensor, kinds: Tensor, small: Tensor) -> Tensor:
    """Glowing things on a dark ground, out of focus in places, with photon noise; grey or in one colour."""
    count, size = labels.shape[:2]
    look = Appearance(free=0.05, faint=0.15, texture=(0.02, 0.12), soft=(0.5, 2.0), fuzzy=0.15, shade=0.1)
    image = paint_regions(draw, labels, kinds, GLOW, look, small)[:, 0].clamp(min=0)
    haze = wide_blur(image[:, None], draw.uniform(0.02, 0.08, count) * size)[:, 0]
    image = image + column(draw.uniform(0, 0.35, count)) * haze.clamp(min=0)
    photons = column(draw.log_uniform(20, 2000, count))
    image = image + (image.clamp(min=0) / photons).sqrt() * draw.normal(count, size, size)
    image = image + column(draw.log_uniform(0.002, 0.03, count)) * draw.normal(count, size, size)
    image = image * column(draw.log_uniform(0.25, 1.1, count))
    tint = draw.uniform(0, 1, count, 3)
    tint = torch.where(draw.chance(0.7, count)[:, None], 1.0, tint / tint.amax(1, keepdim=True))
    image = image[:, None] * tint[:, :, None, None]
    return image.masked_fill((labels == OUTSIDE)[:, None], 0)


def show_brightfield(draw: Draw, labels: Tensor, kinds: Tensor, small: Tensor) -> Tensor:
    """Stained cells and tissue on a bright ground; stains of any hue, a third of the samples without
    colour."""
    count = len(labels)
    look = Appearance(free=0.1, faint=0.2, texture=(0.01, 0.1), soft=(0.4, 1.6), fuzzy=0.1, shade=0.08)
    image = paint_regions(draw, labels, kinds, STAIN, look, small).clamp(0.02, 1.1)
    density = -image.log()  # stains absorb
    turn = torch.eye(3, device=draw.device) + 0.25 * draw.normal(count, 3, 3)
    density = (
        torch.einsum("bij,bjyx->biyx", turn, density) * draw.log_uniform(0.5, 1.6, count)[:, None, None, None]
    )
    image = torch.exp(-density.clamp(min=0))
    grey = draw.chance(0.35, count)[:, None, None, None]
    image = torch.where(grey, image.mean(1, keepdim=True), image)
    white = 1 + 0.05 * draw.normal(count, 3)
    return _finish(draw, image * white[:, :, None, None], labels)


def _finish(draw: Draw, image: Tensor, labels: Tensor) -> Tensor:
    """A camera: white balance, exposure, noise; black or grey beyond the lens."""
    count, size = labels.shape[:2]
    balance = draw.log_uniform(0.75, 1.15, count)[:, None] * (1 + 0.05 * draw.normal(count, 3))
    image = image * balance[:, :, None, None]
    noise = column(draw.log_uniform(0.002, 0.03, count))[:, None]
    grain = draw.normal(count, 1, size, size) + 0.3 * smooth_noise(draw, count, size, max(size // 3, 4))
    return (image + noise * grain).masked_fill((labels == OUTSIDE)[:, None], 0)
