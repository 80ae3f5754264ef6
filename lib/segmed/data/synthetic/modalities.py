"""Grey modalities: CT, MR, ultrasound, X-ray, and one without physics. Each turns label maps into (B, 1, S,
S)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from segmed.data.synthetic.appearance import Appearance, Palette, paint_regions
from segmed.data.synthetic.canvas import OUTSIDE, Kind
from segmed.data.synthetic.draw import Draw
from segmed.data.synthetic.noise import blur, column, pixel_grid, smooth_noise, spectral_noise, wide_blur

CT: Palette = {
    Kind.AIR: (0.0, 0.01),
    Kind.TISSUE: (0.42, 0.58),
    Kind.FAT: (0.2, 0.34),
    Kind.BONE: (0.75, 1.05),
    Kind.ORGAN: (0.45, 0.68),
    Kind.FLUID: (0.4, 0.8),
    Kind.GAS: (0.0, 0.08),
    Kind.LESION: (0.32, 0.62),
    Kind.CORE: (0.3, 0.8),
    Kind.RIM: (0.45, 0.85),
    Kind.NUCLEUS: (0.5, 0.9),
    Kind.CYTOPLASM: (0.4, 0.7),
}
ANY: Palette = {kind: (0.0, 0.05 if kind == Kind.AIR else 1.0) for kind in Kind}
MR: Palette = {kind: (0.0, {Kind.AIR: 0.05, Kind.GAS: 0.05, Kind.BONE: 0.3}.get(kind, 1.0)) for kind in Kind}
ECHO: Palette = {
    Kind.AIR: (0.0, 0.25),
    Kind.TISSUE: (0.25, 0.6),
    Kind.FAT: (0.25, 0.6),
    Kind.BONE: (0.7, 1.0),
    Kind.ORGAN: (0.2, 0.6),
    Kind.FLUID: (0.0, 0.15),
    Kind.GAS: (0.0, 0.5),
    Kind.LESION: (0.08, 0.45),
    Kind.CORE: (0.0, 0.6),
    Kind.RIM: (0.5, 0.9),
    Kind.NUCLEUS: (0.1, 0.6),
    Kind.CYTOPLASM: (0.1, 0.6),
}
THICKNESS: Palette = {
    Kind.AIR: (0.0, 0.1),
    Kind.TISSUE: (0.35, 0.6),
    Kind.FAT: (0.3, 0.5),
    Kind.BONE: (0.7, 1.0),
    Kind.ORGAN: (0.4, 0.75),
    Kind.FLUID: (0.4, 0.75),
    Kind.GAS: (0.08, 0.3),
    Kind.LESION: (0.45, 0.75),
    Kind.CORE: (0.5, 0.9),
    Kind.RIM: (0.5, 0.95),
    Kind.NUCLEUS: (0.4, 0.9),
    Kind.CYTOPLASM: (0.4, 0.8),
}


def show_ct(draw: Draw, labels: Tensor, kinds: Tensor, small: Tensor) -> Tensor:
    """A CT slice in a window: dense bone, black air, correlated noise of few photons, streaks between dense
    things."""
    count, size = labels.shape[:2]
    image = paint_regions(
        draw, labels, kinds, CT, Appearance(free=0.25, texture=(0.004, 0.04), shade=0.03), small
    )[:, 0]
    dose = column(draw.log_uniform(0.006, 0.09, count))
    fine, coarse = spectral_noise(draw, count, size, 0.2, 0.45), spectral_noise(draw, count, size, 0.05, 0.2)
    thick = 0.5 + wide_blur(image[:, None], torch.full((count,), 0.1 * size, device=draw.device))[:, 0].clamp(
        0, 1
    )
    image = image + dose * thick * (0.7 * fine + 0.5 * coarse)
    x, y = pixel_grid(size, draw.device)
    at = draw.uniform(0.2, 0.8, count, 2)
    dx, dy = x - column(at[:, 0]), y - column(at[:, 1])
    turn = torch.atan2(dy, dx) / math.pi
    rays = torch.zeros_like(image)
    for number in (5, 11, 23):
        phase, many = column(draw.uniform(0, 6.3, count)), column(draw.uniform(0.7, 1.4, count) * number)
        rays = rays + torch.cos(turn * many.round() * math.pi + phase)
    streak = column(draw.chance(0.1, count) * draw.uniform(0.003, 0.015, count))
    image = image + streak * rays / (0.3 + 2 * (dx**2 + dy**2).sqrt())
    # the window: what lies beyond is black or white; the body, not the air, sets it
    body = (labels != OUTSIDE) & (image > 0.12)
    share = body.sum((1, 2), keepdim=True).clamp(min=1)
    centre = (image * body).sum((1, 2), keepdim=True) / share
    spread = (((image - centre).square() * body).sum((1, 2), keepdim=True) / share).sqrt().clamp(min=0.03)
    low = centre - spread * column(draw.uniform(1.2, 3.5, count))
    high = centre + spread * column(draw.uniform(1.2, 3.5, count))
    image = torch.where(column(draw.chance(0.7, count)), (image - low) / (high - low), image)
    return image.masked_fill(labels == OUTSIDE, 0)[:, None]


def show_mr(draw: Draw, labels: Tensor, kinds: Tensor, small: Tensor) -> Tensor:
    """An MR slice: any contrast, a bias field, Gibbs ringing of a truncated k-space, Rician noise."""
    count, size = labels.shape[:2]
    image = paint_regions(draw, labels, kinds, MR, Appearance(free=0.3, texture=(0.008, 0.07)), small)[:, 0]
    field = smooth_noise(draw, count, size, 2)[:, 0]
    image = image.clamp(min=0) * torch.exp(column(draw.uniform(0, 0.35, count)) * field)
    x, y = pixel_grid(size, draw.device)
    at = draw.uniform(-0.2, 1.2, count, 2)
    coil = torch.exp(-1.5 * ((x - column(at[:, 0])) ** 2 + (y - column(at[:, 1])) ** 2))
    image = image * torch.where(column(draw.chance(0.25, count)), 1.4 * coil, 1.0)
    spectrum = torch.fft.rfft2(image)
    fy = torch.fft.fftfreq(size, device=draw.device).abs()[None, :, None]
    fx = torch.fft.rfftfreq(size, device=draw.device)[None, None]
    cut = draw.uniform(0.1, 0.6, count, 2)
    spectrum = spectrum * ((fy < column(cut[:, 0])) & (fx < column(cut[:, 1])))
    ringing = torch.fft.irfft2(spectrum, s=(size, size))
    image = torch.where(column(draw.chance(0.35, count) & ~small), ringing, image)
    noise = column(draw.log_uniform(0.004, 0.09, count))
    real, imaginary = draw.normal(2, count, size, size)
    image = torch.hypot(image + noise * real, noise * imaginary)
    return image.masked_fill(labels == OUTSIDE, 0)[:, None]


def show_ultrasound(draw: Draw, labels: Tensor, kinds: Tensor, small: Tensor) -> Tensor:
    """An echo: speckle with a point spread wider across the beam, bright borders, shadows, attenuation, log
    scale."""
    count, size = labels.shape[:2]
    look = Appearance(free=0.3, faint=0.25, texture=(0.01, 0.06), soft=(0.6, 2.5), fuzzy=0.35, shade=0.1)
    image = paint_regions(draw, labels, kinds, ECHO, look, small)[:, 0].clamp(0, 1.2)
    # borders across the beam reflect it
    step = F.pad((image[:, 1:] - image[:, :-1]).abs(), (0, 0, 1, 0))
    echo = wide_blur(step[:, None], torch.full((count,), 2.5, device=draw.device))[:, 0].clamp(min=0)
    image = image + column(draw.uniform(0, 2.5, count)) * echo
    x, y = pixel_grid(size, draw.device)
    across, along = draw.uniform(0.8, 3.0, count) * size / 192, draw.uniform(0.4, 1.2, count) * size / 192
    waves = draw.normal(count, 2, size, size)
    waves = _blur_rows(waves, across, along)
    speckle = waves.square().sum(1).sqrt()
    speckle = speckle / speckle.mean((1, 2), keepdim=True)
    strength = column(draw.uniform(0.3, 1.0, count))
    amplitude = image.clamp(min=0.01) ** 1.5 * (1 - strength + strength * speckle)
    depth = torch.exp(-column(draw.uniform(-0.6, 1.6, count)) * y)
    shadow = torch.ones_like(image)
    for _ in range(2):
        at, tilt = draw.uniform(0, 1, count), draw.uniform(-0.6, 0.6, count)
        wide, deep = draw.uniform(0.02, 0.12, count), draw.uniform(0, 0.8, count)
        off = ((x - column(at) - (y - 0.2) * column(tilt)) / column(wide)).abs()
        dark = torch.sigmoid(6 * (1 - off)) * torch.sigmoid(30 * (y - column(deep)))
        shadow = shadow * (1 - dark * column(draw.chance(0.35, count) * draw.uniform(0.4, 0.95, count)))
    # log compression to a dynamic range
    floor = column(draw.log_uniform(0.002, 0.05, count))
    image = (amplitude * depth * shadow).clamp(min=1e-4)
    image = 1 + (image / 1.2).log() / -floor.log()
    return image.clamp(0, 1.2).masked_fill(labels == OUTSIDE, 0)[:, None]


def _blur_rows(waves: Tensor, across: Tensor, along: Tensor) -> Tensor:
    """A Gaussian wider along x than along y, in Fourier space."""
    size = waves.shape[-1]
    fy = torch.fft.fftfreq(size, device=waves.device)[None, :, None]
    fx = torch.fft.rfftfreq(size, device=waves.device)[None, None]
    gain = torch.exp(-2 * math.pi**2 * ((fx * column(across)) ** 2 + (fy * column(along)) ** 2))
    return torch.fft.irfft2(torch.fft.rfft2(waves) * gain[:, None], s=(size, size))


def show_xray(draw: Draw, labels: Tensor, kinds: Tensor, small: Tensor) -> Tensor:
    """A projection: thicknesses add up, so that other shapes, ribs and a spine lie over the regions."""
    count, size = labels.shape[:2]
    look = Appearance(free=0.2, faint=0.2, texture=(0.005, 0.04), soft=(0.5, 2.0), fuzzy=0.15)
    flat = paint_regions(draw, labels, kinds, THICKNESS, look, small)[:, 0]
    round_ = wide_blur(flat[:, None], draw.uniform(0.02, 0.07, count) * size)[:, 0]
    image = torch.lerp(flat, round_, column(draw.uniform(0.05, 0.5, count)))  # bodies are thick in the middle
    image = image + column(draw.uniform(0, 0.3, count)) * round_.flip(2).roll(1, 0)
    x, y = pixel_grid(size, draw.device)
    bend = smooth_noise(draw, count, size, 3, 2) * 0.02
    tilt, many = column(draw.uniform(-0.5, 0.5, count)), column(draw.uniform(5, 12, count))
    arch = y + bend[:, 0] + tilt * (x - 0.5).abs() + column(draw.uniform(-0.8, 0.8, count)) * (x - 0.5) ** 2
    ribs = torch.sigmoid(8 * (torch.cos(2 * math.pi * many * arch) - column(draw.uniform(0, 0.6, count))))
    image = image + column(draw.chance(0.4, count) * draw.uniform(0.02, 0.1, count)) * ribs
    centre, wide = column(draw.uniform(0.2, 0.8, count)), column(draw.uniform(0.03, 0.08, count))
    off = ((x - centre + 1.5 * bend[:, 1]) / wide).abs()
    discs = 0.85 + 0.15 * torch.cos(2 * math.pi * y * column(draw.uniform(8, 20, count)))
    spine = torch.sigmoid(5 * (1 - off)) * discs
    image = image + column(draw.chance(0.35, count) * draw.uniform(0.05, 0.3, count)) * spine
    image = image + 0.12 * smooth_noise(draw, count, size, 2)[:, 0]
    image = image + column(draw.log_uniform(0.003, 0.035, count)) * spectral_noise(
        draw, count, size, 0.1, 0.45
    )
    image = image - image.amin((1, 2), keepdim=True)
    image = image / image.amax((1, 2), keepdim=True).clamp(min=1e-3)
    curve = column(draw.log_uniform(0.7, 1.6, count))
    return (image.clamp(min=0) ** curve).masked_fill(labels == OUTSIDE, 0)[:, None]


def show_any(draw: Draw, labels: Tensor, kinds: Tensor, small: Tensor) -> Tensor:
    """Grey of any brightness and texture, sharp or soft, without the physics of a scanner (SynthSeg,
    SynthFM)."""
    count, size = labels.shape[:2]
    look = Appearance(free=0.7, faint=0.4, texture=(0.01, 0.2), soft=(0.2, 1.5), fuzzy=0.3, shade=0.2)
    image = paint_regions(draw, labels, kinds, ANY, look, small)
    image = blur(image, draw.uniform(0.1, 1.0, count), 1.5)
    noise = draw.log_uniform(0.002, 0.12, count)[:, None, None, None]
    return (image + noise * draw.normal(count, 1, size, size)).masked_fill((labels == OUTSIDE)[:, None], 0)
