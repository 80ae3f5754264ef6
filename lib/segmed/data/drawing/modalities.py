"""How a scanner or a camera shows a scene: noise, shading and colour of the common modalities.

Ideas: SynthSeg (Billot et al., 2023) for MR and random resolution; the physics is textbook, as simple as it can be.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from segmed.data.drawing.noise import Dice, coordinates, smooth_noise
from segmed.data.drawing.scene import Scene


def blur(image: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur of (B, S, S) with a sd of sigma (B,) px."""
    reach = 6
    place = torch.arange(-reach, reach + 1, device=image.device)
    kernel = torch.exp(-(place**2) / (2 * sigma[:, None].clamp(min=0.05) ** 2))
    kernel = kernel / kernel.sum(1, keepdim=True)
    count = len(image)
    rows = F.pad(image[None], (reach, reach, reach, reach), mode="reflect")
    rows = F.conv2d(rows, kernel[:, None, None, :], groups=count)
    return F.conv2d(rows, kernel[:, None, :, None], groups=count)[0]


def _three(grey: Tensor) -> Tensor:
    return grey[:, None].expand(-1, 3, -1, -1)


def ct(dice: Dice, scene: Scene) -> Tensor:
    """Windowed, with noise of the detector that reconstruction has blurred, and streaks."""
    count, size = len(scene.grey), scene.grey.shape[-1]
    noise = blur(dice.normal(count, size, size), dice.uniform(count, low=0.4, high=1.2))
    x, y = coordinates(count, size, dice.device)
    turn = dice.uniform(count, 1, 1, high=math.pi)
    streak = torch.sin((x * turn.cos() + y * turn.sin()) * dice.uniform(count, 1, 1, low=60, high=200))
    strength = dice.uniform(count, 1, 1, high=0.03) * dice.chance(count, 1, 1, share=0.2)
    return _three(scene.grey + dice.uniform(count, 1, 1, high=0.12) * noise + strength * streak)


def mr(dice: Dice, scene: Scene) -> Tensor:
    """Bias field, Gibbs ringing and Rician noise."""
    count, size = len(scene.grey), scene.grey.shape[-1]
    field = 1 + dice.uniform(count, 1, 1, high=0.35) * smooth_noise(dice, count, 1, size, 3)[:, 0]
    image = scene.grey * field.clamp(min=0.2)
    spectrum = torch.fft.rfft2(image)
    rows = torch.fft.fftfreq(size, device=dice.device).abs()[None, :, None]
    columns = torch.fft.rfftfreq(size, device=dice.device)[None, None]
    limit = dice.uniform(count, 1, 1, low=0.22, high=0.55)
    image = torch.fft.irfft2(spectrum * ((rows < limit) & (columns < limit)), s=(size, size))
    sd = dice.uniform(count, 1, 1, high=0.07)
    return _three(torch.hypot(image + sd * dice.normal(count, size, size), sd * dice.normal(count, size, size)))


def ultrasound(dice: Dice, scene: Scene) -> Tensor:
    """Speckle along the beam, depth gain, shadows, and half of the time a fan."""
    count, size = len(scene.grey), scene.grey.shape[-1]
    x, y = coordinates(count, size, dice.device)
    real, imaginary = (blur(dice.normal(count, size, size), dice.uniform(count, low=0.6, high=1.8)) for _ in range(2))
    speckle = torch.hypot(real, imaginary)
    speckle = speckle / speckle.mean((1, 2), keepdim=True)
    image = scene.grey * speckle ** dice.uniform(count, 1, 1, low=0.5, high=1.1)
    beam = (smooth_noise(dice, count, 1, size, 9)[:, 0, :1] > 1.2) & (y > dice.uniform(count, 1, 1, low=0.2, high=0.8))
    image = torch.where(beam & dice.chance(count, 1, 1, share=0.4), image * 0.25, image)
    image = image * (1 - dice.uniform(count, 1, 1, high=0.5) * y)
    apex = torch.hypot(x - 0.5, y + 0.15)
    fan = (apex > 0.25) & (apex < 1.1) & ((x - 0.5).abs() < 0.75 * (y + 0.15))
    return _three(torch.where(fan | dice.chance(count, 1, 1, share=0.5), image, torch.zeros_like(image)))


def xray(dice: Dice, scene: Scene) -> Tensor:
    """Objects add up along the beam; ribs in front of half of them."""
    count, size = len(scene.grey), scene.grey.shape[-1]
    x, y = coordinates(count, size, dice.device)
    wave = torch.sin((y + 0.25 * (x - 0.5).abs()) * dice.uniform(count, 1, 1, low=30, high=60))
    ribs = (wave > 0.6) * dice.uniform(count, 1, 1, high=0.2) * dice.chance(count, 1, 1, share=0.5)
    see_through = dice.uniform(count, 1, 1, low=0.2, high=0.8)
    clouds = 0.25 * smooth_noise(dice, count, 1, size, 4)[:, 0]
    image = scene.grey * (1 - see_through) + see_through * (0.4 + 1.2 * scene.depth + clouds) + ribs
    return _three(blur(image, dice.uniform(count, low=0.5, high=1.5)) + 0.02 * dice.normal(count, size, size))


def camera(dice: Dice, scene: Scene) -> Tensor:
    """Endoscopy and dermoscopy: tinted light, shine, vignette, hair."""
    count, size = len(scene.grey), scene.grey.shape[-1]
    x, y = coordinates(count, size, dice.device)
    warm = torch.tensor([1.0, 0.55, 0.45], device=dice.device)
    dark, light = dice.uniform(count, 3) * 0.5 * warm, 0.4 + 0.6 * dice.uniform(count, 3) * warm
    mix = scene.grey.clamp(0, 1)[:, None]
    tint = smooth_noise(dice, count, 3, size, 5) * 0.04
    image = dark[:, :, None, None] * (1 - mix) + light[:, :, None, None] * mix + tint
    shine = smooth_noise(dice, count, 1, size, max(8, size // 10)) > 2.4
    image = torch.where(shine & dice.chance(count, 1, 1, 1, share=0.5), torch.full_like(image, 0.95), image)
    hair = smooth_noise(dice, count, 1, size, 5).abs() < 0.012
    image = torch.where(hair & dice.chance(count, 1, 1, 1, share=0.25), image * 0.3, image)
    edge = torch.hypot(x - 0.5, y - 0.5)[:, None]
    return image * (1 - dice.uniform(count, 1, 1, 1, high=1.2) * (edge - 0.2).clamp(min=0))


def microscope(dice: Dice, scene: Scene) -> Tensor:
    """Fluorescence on black, or a stain on white."""
    count, size = len(scene.grey), scene.grey.shape[-1]
    shown = scene.masks.any(1) * (0.35 + 0.65 * scene.grey.clamp(0, 1))
    glow = blur(shown, dice.uniform(count, low=0.4, high=1.6)) + 0.03 * dice.normal(count, size, size).abs()
    stain = (
        1
        - dice.uniform(count, 3, 1, 1, low=0.05, high=0.9)
        * blur(shown, dice.uniform(count, low=0.3, high=0.8))[:, None]
    )
    stain = stain - 0.05 * smooth_noise(dice, count, 3, size, max(6, size // 6)).abs()
    return torch.where(dice.chance(count, 1, 1, 1, share=0.5), _three(glow), stain)


MODALITIES: dict[str, Callable[[Dice, Scene], Tensor]] = {
    "ct": ct,
    "mr": mr,
    "ultrasound": ultrasound,
    "xray": xray,
    "camera": camera,
    "microscope": microscope,
}
