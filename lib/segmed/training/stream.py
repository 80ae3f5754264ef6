"""An endless stream of training samples of phantoms: step n is the same whenever it is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from segmed.data.phantom.sample import PhantomConfig, generate
from segmed.training.prompts import tight_boxes


@dataclass(frozen=True)
class StreamConfig:
    """What a step trains on.

    Attributes:
        batch: objects per step.
        size: side of the model input in px.
        drawn: side of the drawn pictures in px.
        objects: objects taken from one picture.
        zoom_share: share of objects shown in a window around them, as the model sees them at inference.
        zoom: smallest and largest side of that window, in sides of the object's box.
        phantom: what is drawn.
    """

    batch: int = 32
    size: int = 128
    drawn: int = 192
    objects: int = 2
    zoom_share: float = 0.7
    zoom: tuple[float, float] = (1.3, 4.0)
    phantom: PhantomConfig = field(default_factory=PhantomConfig)

    def __post_init__(self) -> None:
        if self.batch < 1 or self.objects < 1:
            raise ValueError(f"batch {self.batch} and objects {self.objects} must be at least 1.")
        if not 0 <= self.zoom_share <= 1:
            raise ValueError(f"zoom_share {self.zoom_share} is a share between 0 and 1.")
        if not 1 < self.zoom[0] <= self.zoom[1]:
            raise ValueError(f"zoom {self.zoom} must be two rising factors above 1: a window shows its whole object.")


def training_batch(config: StreamConfig, seed: int, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Draw one step.

    Args:
        config: what to draw.
        seed: of the step.
        device: where to draw.

    Returns:
        images (batch, 3, size, size) in [0, 1] and one object each, (batch, size, size) boolean, none empty.
    """
    generator = torch.Generator(device).manual_seed(seed)
    pictures = -(-config.batch // config.objects)
    drawn = generate(pictures, config.drawn, seed, device, config.phantom)
    chance = torch.rand(drawn.valid.shape, generator=generator, device=device)
    order = torch.where(drawn.valid, chance, -1.0).argsort(1, descending=True)[:, : config.objects]
    # pictures with fewer objects than asked for show their first one again
    order = torch.where(torch.gather(drawn.valid, 1, order), order, order[:, :1])
    picture = torch.arange(pictures, device=device)[:, None].expand_as(order).flatten()[: config.batch]
    truth = drawn.targets[picture, order.flatten()[: config.batch]]
    return zoomed(drawn.images[picture], truth, config, generator)


def zoomed(images: Tensor, truth: Tensor, config: StreamConfig, generator: Generator) -> tuple[Tensor, Tensor]:
    """Whole pictures or windows around the objects, resampled to the model's size.

    Args:
        images: (B, 3, H, H)
        truth: (B, H, H) boolean.
        config: window sizes.
        generator: source of randomness.

    Returns:
        (B, 3, size, size) and (B, size, size) boolean; an object that resampling would lose keeps its whole picture.
    """
    count, side, device = len(images), images.shape[-1], images.device
    boxes = tight_boxes(truth)
    centre, extent = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2] + 1).amax(1)
    draw = torch.rand(4, count, generator=generator, device=device)
    low, high = config.zoom
    window = (extent * low * (high / low) ** draw[0]).clamp(min=16)
    window = torch.where(draw[1] < config.zoom_share, window, side)
    shift = (draw[2:].T - 0.5) * (window - extent).clamp(min=0)[:, None]
    place = torch.where((window >= side)[:, None], torch.full_like(centre, (side - 1) / 2), centre + shift)
    scale = window.clamp(max=side) / side
    offset = (place * 2 + 1) / side - 1
    theta = torch.zeros(count, 2, 3, device=device)
    theta[:, 0, 0] = theta[:, 1, 1] = scale
    theta[:, :, 2] = offset
    grid = F.affine_grid(theta, [count, 1, config.size, config.size], align_corners=False)
    shown = F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)
    mask = F.grid_sample(truth.float()[:, None], grid, align_corners=False)[:, 0] > 0.5
    lost = ~mask.flatten(1).any(1)
    if lost.any():
        mask[lost] = F.adaptive_max_pool2d(truth[lost].float()[:, None], config.size)[:, 0] > 0
        shown[lost] = F.interpolate(images[lost], config.size, mode="bilinear", antialias=True)
    return shown, mask
