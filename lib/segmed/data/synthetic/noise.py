"""Band-limited noise, smoothing, and the warped coordinates in which scenes are drawn."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from segmed.data.synthetic.draw import Draw


def column(values: Tensor) -> Tensor:
    """(B,) to (B, 1, 1), to be multiplied with maps."""
    return values[:, None, None]


def smooth_noise(draw: Draw, count: int, size: int, cells: int, channels: int = 1) -> Tensor:
    """Noise with one bump per cell, about standard normal: random numbers on a coarse grid, interpolated.

    Args:
        draw: source of randomness.
        count: maps, B.
        size: side S in px.
        cells: grid cells along a side.
        channels: C

    Returns:
        (B, C, S, S)
    """
    coarse = draw.normal(count, channels, cells + 3, cells + 3)
    middle = min(4 * cells, size)  # bicubic only as far as its smoothness shows
    scaled = F.interpolate(coarse, size=middle + 3 * middle // cells, mode="bicubic", align_corners=False)
    edge = (scaled.shape[-1] - middle) // 2
    scaled = scaled[..., edge : edge + middle, edge : edge + middle]
    if middle < size:
        scaled = F.interpolate(scaled, size=size, mode="bilinear", align_corners=False)
    return scaled * 1.3


def octave_noise(
    draw: Draw, count: int, size: int, cells: tuple[int, ...], rough: Tensor | float = 0.5
) -> Tensor:
    """Sum of smooth noises, each finer one weaker by the factor `rough` ((B,) or a number).

    Returns:
        (B, S, S), about unit variance.
    """
    factor = rough if isinstance(rough, Tensor) else torch.full((count,), rough, device=draw.device)
    total = torch.zeros(count, size, size, device=draw.device)
    weight, power = torch.ones_like(factor), torch.zeros_like(factor)
    for number in cells:
        total += column(weight) * smooth_noise(draw, count, size, min(number, size // 2))[:, 0]
        power, weight = power + weight**2, weight * factor
    return total / column(power.sqrt())


def spectral_noise(draw: Draw, count: int, size: int, low: float, high: float) -> Tensor:
    """Noise in a band of spatial frequencies, with a grain that may lie in one direction.

    Args:
        draw: source of randomness.
        count: maps, B.
        size: side S in px.
        low: lowest centre of the band, cycles per px.
        high: highest centre, at most 0.5.

    Returns:
        (B, S, S), zero mean and unit variance per map.
    """
    fy = torch.fft.fftfreq(size, device=draw.device)[:, None]
    fx = torch.fft.rfftfreq(size, device=draw.device)[None]
    angle, stretch = column(draw.uniform(0, math.pi, count)), column(draw.log_uniform(1, 2.5, count))
    centre, width = column(draw.log_uniform(low, high, count)), column(draw.uniform(0.4, 1.2, count))
    along, across = fx * angle.cos() + fy * angle.sin(), (fy * angle.cos() - fx * angle.sin()) * stretch
    radius = (along**2 + across**2).sqrt()
    gain = torch.exp(-(((radius - centre) / (centre * width)) ** 2))
    gain[:, 0, 0] = 0
    spectrum = torch.view_as_complex(draw.normal(count, size, size // 2 + 1, 2)) * gain
    noise = torch.fft.irfft2(spectrum, s=(size, size))
    return noise / noise.std((1, 2), keepdim=True).clamp(min=1e-6)


def blur(images: Tensor, sigma: Tensor, longest: float = 2.5) -> Tensor:
    """Gaussian smoothing with another width for each image.

    Args:
        images: (B, C, S, S)
        sigma: (B,) standard deviations in px; larger ones than `longest` are cut to it.
        longest: the largest sigma, which sets the length of the kernel.
    """
    count, channels = images.shape[:2]
    reach = max(math.ceil(2.5 * longest), 1)
    at = torch.arange(-reach, reach + 1, device=images.device)
    kernel = torch.exp(-0.5 * (at / sigma.clamp(0.05, longest)[:, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    flat = images.reshape(1, count * channels, *images.shape[2:])
    flat = F.conv2d(
        F.pad(flat, (reach, reach, 0, 0), mode="replicate"), kernel[:, None, None], groups=count * channels
    )
    flat = F.conv2d(
        F.pad(flat, (0, 0, reach, reach), mode="replicate"), kernel[:, None, :, None], groups=count * channels
    )
    return flat.reshape(images.shape)


def wide_blur(images: Tensor, sigma: Tensor) -> Tensor:
    """As `blur` for sigmas above 2 px, up to a tenth of the side, worked out on a coarse grid."""
    size = images.shape[-1]
    coarse = F.interpolate(images, size=max(size // 4, 8), mode="area")
    coarse = blur(coarse, sigma / 4, max(size / 40, 1.0))
    return F.interpolate(coarse, size=size, mode="bicubic", align_corners=False)


def pixel_grid(size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """x (1, 1, S) and y (1, S, 1) of pixel centres in [0, 1]."""
    axis = (torch.arange(size, device=device) + 0.5) / size
    return axis[None, None, :], axis[None, :, None]


def warped_view(
    draw: Draw,
    count: int,
    size: int,
    zoom: tuple[float, float] = (0.8, 1.5),
    turn: float = 0.3,
    bend: float = 0.03,
) -> tuple[Tensor, Tensor]:
    """Where each pixel lies in the unit square of the scene: zoom, rotation, shear, shift and elastic
    deformation.

    Shapes are evaluated at these coordinates, so that no mask is ever resampled.

    Args:
        draw: source of randomness.
        count: views, B.
        size: side S in px.
        zoom: smallest and largest magnification; above 1 crops the scene.
        turn: largest rotation in radians.
        bend: standard deviation of the displacement, in scenes.

    Returns:
        x and y, (B, S, S) each.
    """
    px, py = pixel_grid(size, draw.device)
    scale = column(draw.log_uniform(*zoom, count))
    aspect = column(draw.log_uniform(0.85, 1.18, count))
    angle = column(draw.uniform(-turn, turn, count))
    room = (1 - 1 / scale).abs() / 2 + 0.03
    x, y = (px - 0.5) / scale * aspect, (py - 0.5) / scale / aspect
    left = angle.cos() * x - angle.sin() * y + 0.5 + room * column(draw.uniform(-1, 1, count))
    down = angle.sin() * x + angle.cos() * y + 0.5 + room * column(draw.uniform(-1, 1, count))
    amount = column(draw.uniform(0, bend, count)) * 2
    coarse = smooth_noise(draw, count, size, 3, 2)
    fine = smooth_noise(draw, count, size, 9, 2)
    moved = (coarse + 0.25 * fine) * amount[:, None]
    return left + moved[:, 0], down + moved[:, 1]
