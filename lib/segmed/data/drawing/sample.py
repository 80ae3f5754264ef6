"""From a seed to training pictures: scene, modality, acquisition, and the objects worth boxing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from segmed.data.drawing.modalities import MODALITIES, blur
from segmed.data.drawing.noise import Dice
from segmed.data.drawing.scene import draw_scene
from segmed.data.drawing.shapes import SHAPES


@dataclass(frozen=True)
class DrawingConfig:
    """What is drawn.

    Attributes:
        shapes: names out of `SHAPES`.
        modalities: names out of `MODALITIES`.
        objects: painted per picture.
        targets: most objects handed out per picture.
        smallest: least visible area of a target, as share of the picture.
    """

    shapes: tuple[str, ...] = tuple(SHAPES)
    modalities: tuple[str, ...] = tuple(MODALITIES)
    objects: int = 8
    targets: int = 4
    smallest: float = 0.0004

    def __post_init__(self) -> None:
        for given, known in ((self.shapes, SHAPES), (self.modalities, MODALITIES)):
            wrong = [name for name in given if name not in known]
            if wrong or not given:
                raise ValueError(f"{wrong or 'nothing'} cannot be drawn; choose from {', '.join(known)}.")
        if self.targets < 1 or self.objects < self.targets:
            raise ValueError(f"objects {self.objects} must be at least targets {self.targets}, and that at least 1.")
        if not 0 < self.smallest < 0.5:
            raise ValueError(f"smallest {self.smallest} is a share of the picture between 0 and 0.5.")


@dataclass(frozen=True)
class Drawing:
    """Pictures with their objects.

    Attributes:
        images: (B, 3, S, S) in [0, 1].
        targets: (B, K, S, S) boolean, one object each.
        valid: (B, K) boolean, which of them are there.
        modality: (B,) index into the configuration's modalities.
    """

    images: Tensor
    targets: Tensor
    valid: Tensor
    modality: Tensor


def draw(count: int, size: int, seed: int, device: str = "cpu", config: DrawingConfig | None = None) -> Drawing:
    """Draw pictures; the same arguments give the same pictures on the same device.

    Args:
        count: pictures.
        size: side in px.
        seed: of everything random.
        device: where to draw.
        config: what to draw.
    """
    config = config or DrawingConfig()
    dice = Dice(torch.Generator(device).manual_seed(seed))
    scene = draw_scene(dice, count, size, config.shapes, config.objects)
    modality = dice.integer(count, low=0, high=len(config.modalities) - 1)
    images = torch.empty(count, 3, size, size, device=dice.device)
    for index, name in enumerate(config.modalities):
        rows = (modality == index).nonzero()[:, 0]
        if len(rows):
            part = type(scene)(scene.grey[rows], scene.masks[rows], scene.depth[rows])
            images[rows] = MODALITIES[name](dice, part)
    area = scene.masks.float().mean((2, 3))
    good = (area >= config.smallest) & (area < 0.6)
    order = torch.where(good, dice.uniform(count, config.objects), -1.0).argsort(1, descending=True)[
        :, : config.targets
    ]
    rows = torch.arange(count, device=dice.device)[:, None]
    return Drawing(_acquire(dice, images), scene.masks[rows, order], good[rows, order], modality)


def _acquire(dice: Dice, images: Tensor) -> Tensor:
    """Resolution, blur, gamma, inversion, range and 8 bit, as exports of any scanner vary: (B, 3, S, S) in [0, 1]."""
    count, size = len(images), images.shape[-1]
    coarse = images
    for side in (size // 2, size // 3):
        small = F.interpolate(images, side, mode="bilinear", antialias=True)
        again = F.interpolate(small, size, mode="bilinear", align_corners=False)
        coarse = torch.where(dice.chance(count, 1, 1, 1, share=0.15), again, coarse)
    sigma = dice.uniform(count, high=1.2).repeat_interleave(3)
    images = blur(coarse.flatten(0, 1), sigma).view_as(images)
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    images = (images - low) / (high - low).clamp(min=1e-6)
    images = images ** torch.exp(0.45 * dice.normal(count, 1, 1, 1))
    images = torch.where(dice.chance(count, 1, 1, 1, share=0.2), 1 - images, images)
    floor, ceiling = dice.uniform(count, 1, 1, 1, high=0.15), dice.uniform(count, 1, 1, 1, low=0.7)
    images = floor + images * (ceiling - floor)
    return (images.clamp(0, 1) * 255).round() / 255
