"""Features of high resolution without labels: seen through a learned downsampler, they must be those of the encoder.

The encoder sees the image shifted, enlarged and mirrored; the same done to the fine features, then made coarse, must
give what it saw. Source: Fu et al., FeatUp: A Model-Agnostic Framework for Features at Any Resolution (ICLR 2024).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torchvision.transforms.v2.functional import gaussian_blur

from segmed.methods.jbu import JbuStack

Encode = Callable[[Tensor], Tensor]  # images (B, 3, S, S) in [0, 1] → features (B, C, h, w)


@dataclass(frozen=True)
class JbuTrainingConfig:
    """The published settings, but for lengths, which are shares of the image's side.

    Attributes:
        steps: batches.
        rate: learning rate of NAdam.
        jitters: views of a batch per step.
        padding: by how much a view may leave the image, on each side (20 of 224 px).
        zoom: largest enlargement of a view.
        directions: random directions in feature space along which features are compared.
        crf_weight: of the conditional random field.
        crf_points: sampled for it.
        clip: norm of the gradient in the first `clipped` steps.
        clipped: see `clip`.
        seed: of everything that is drawn.
    """

    steps: int = 2000
    rate: float = 1e-3
    jitters: int = 5
    padding: float = 20 / 224
    zoom: float = 2.0
    directions: int = 30
    crf_weight: float = 0.001
    crf_points: int = 1000
    clip: float = 1e-4
    clipped: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.jitters, self.directions, self.crf_points) < 1 or self.zoom < 1:
            raise ValueError(
                f"steps {self.steps}, jitters {self.jitters}, directions {self.directions}, crf_points "
                f"{self.crf_points} and zoom {self.zoom} must be at least 1."
            )


def sample_jitters(count: int, padding: float, zoom: float, generator: Generator) -> Tensor:
    """Views of an image, half of them enlarged, half of them mirrored, anywhere on the image with its padding.

    Args:
        count: N
        padding: on each side, as a share of the side.
        zoom: largest enlargement.
        generator: on the CPU.

    Returns:
        (N, 2, 3) matrices for `torch.nn.functional.affine_grid`, good for maps of any resolution.
    """
    draw = torch.rand(6, count, generator=generator)
    scale = torch.where(draw[0] < 0.5, 1 + (zoom - 1) * draw[1], 1.0)
    mirror = torch.where(draw[2] < 0.5, -1.0, 1.0)
    views = torch.zeros(count, 2, 3)
    views[:, 0, 0], views[:, 1, 1] = mirror / scale, 1 / scale
    views[:, :, 2] = ((2 * draw[3:5] - 1) * (1 + 2 * padding - 1 / scale)).T
    return views


def look_through(maps: Tensor, views: Tensor) -> Tensor:
    """Maps (N, C, H, W) as seen in views (N, 2, 3), reflected beyond the borders: (N, C, H, W)."""
    grid = F.affine_grid(views.to(maps), list(maps.shape), align_corners=False)
    return F.grid_sample(maps, grid, padding_mode="reflection", align_corners=False)


class AttentionDownsampler(nn.Module):
    """Weighted means over patches of blurred features, the weights a softmax of what a learned vector finds there.

    Args:
        channels: of the features.
        patch: side of a patch, by which the resolution shrinks.
    """

    def __init__(self, channels: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.score = nn.Sequential(nn.Dropout(0.2), nn.Linear(channels, 1))
        self.weight = nn.Parameter(1 + 0.01 * torch.randn(patch * patch))
        self.bias = nn.Parameter(0.01 * torch.randn(patch * patch))

    def forward(self, fine: Tensor) -> Tensor:
        """(B, C, patch · h, patch · w) → (B, C, h, w)."""
        blurred = gaussian_blur(fine, [5, 5], [1.0, 1.0])
        tiles = blurred.unflatten(3, (-1, self.patch)).unflatten(2, (-1, self.patch))
        tiles = tiles.permute(0, 2, 4, 3, 5, 1).flatten(3, 4)  # (B, h, w, patch², C)
        scores = self.score(tiles)[..., 0]
        if self.training:  # without its scores a patch is averaged by place alone
            scores = scores * (torch.rand_like(scores[..., :1]) > 0.2)
        attention = (scores * self.weight + self.bias).softmax(-1)
        return torch.einsum("bhwpc,bhwp->bchw", tiles, attention)


class Reconstruction(nn.Module):
    """Squared error of features, weighed by an uncertainty that is learned with it.

    Args:
        channels: of the features.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.log_scale = nn.Conv2d(channels, 1, 1)

    def forward(self, found: Tensor, wanted: Tensor, directions: Tensor | None = None) -> Tensor:
        """Mean of (found - wanted)² / (2 s²) + log s.

        Args:
            found: (B, C, h, w)
            wanted: (B, C, h, w), from which the sd s of each place is told.
            directions: (C, D) of unit length, along which the two are compared; None for all channels.
        """
        scale = (self.log_scale(wanted) + 0.1).exp().clamp(min=1e-4)
        error = found - wanted
        if directions is not None:
            error = torch.einsum("bchw,cd->bdhw", error, directions)
        return (error.square() / (2 * scale.square()) + scale.log()).mean()


def crf_loss(fine: Tensor, image: Tensor, points: int = 1000, generator: Generator | None = None) -> Tensor:
    """How much features differ between points that are near each other or look alike: a random field, sampled.

    Args:
        fine: (B, C, H, W)
        image: (B, 3, H, W) in [0, 1]
        points: sampled, alike for the whole batch.
        generator: on the CPU.
    """
    height, width = fine.shape[2:]
    draw = torch.rand(2, points, generator=generator).to(fine.device)
    y, x = (draw[0] * height).long(), (draw[1] * width).long()
    place = torch.stack([y / height, x / width], -1)[None]
    near = _squared_distances(place)
    alike = _squared_distances(image[:, :, y, x].mT)
    kernel = 10 * torch.exp(-near / (2 * 0.1) - alike / (2 * 0.15)) + 3 * torch.exp(-near / (2 * 0.005))
    return (kernel * _squared_distances(fine[:, :, y, x].mT)).mean()


def accumulate(fine: Tensor, losses: Iterable[Callable[[Tensor], Tensor]]) -> float:
    """Gradients of a sum of losses of `fine`, one loss at a time, so that memory holds the graph of one only.

    Args:
        fine: what the losses take, with a graph of its own.
        losses: called in order.

    Returns:
        The sum.
    """
    leaf = fine.detach().requires_grad_()
    total = 0.0
    for loss in losses:
        value = loss(leaf)
        value.backward()
        total += value.item()
    fine.backward(leaf.grad)
    return total


def pretrain_jbu(
    jbu: JbuStack,
    encode: Encode,
    batches: Iterable[Tensor],
    config: JbuTrainingConfig | None = None,
    tell: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Train an upsampler on images alone; the encoder stays as it is.

    Args:
        jbu: trained in place, in evaluation mode afterwards.
        encode: a frozen encoder.
        batches: of images (B, 3, S, S) in [0, 1], at least as many as steps.
        config: how to train.
        tell: called with the step, counted from 1, and its loss.

    Returns:
        The loss of each step.

    Raises:
        ValueError: a loss is not finite.
    """
    config = config or JbuTrainingConfig()
    device = jbu.mix.weight.device
    generator = Generator().manual_seed(config.seed)
    losses: list[float] = []
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        downsample = AttentionDownsampler(jbu.channels, 2 ** len(jbu.stages)).to(device)
        reconstruction = Reconstruction(jbu.channels).to(device)
        jbu.train()
        parameters = [p for module in (jbu, downsample, reconstruction) for p in module.parameters()]
        optimiser = torch.optim.NAdam(parameters, config.rate)
        for step, images in enumerate(islice(batches, config.steps), start=1):
            images = images.to(device)
            with torch.no_grad():
                coarse = encode(images)
            fine = jbu(coarse, images)

            def view_loss(fine: Tensor, images: Tensor = images) -> Tensor:
                views = sample_jitters(len(images), config.padding, config.zoom, generator)
                with torch.no_grad():
                    wanted = encode(look_through(images, views))
                directions = F.normalize(torch.randn(jbu.channels, config.directions, generator=generator), dim=0)
                found = downsample(look_through(fine, views))
                return reconstruction(found, wanted, directions.to(device)) / config.jitters

            def field_loss(fine: Tensor, images: Tensor = images) -> Tensor:
                small = F.adaptive_avg_pool2d(images, (fine.shape[2], fine.shape[3]))
                return config.crf_weight * crf_loss(fine, small, config.crf_points, generator)

            optimiser.zero_grad()
            losses.append(accumulate(fine, [view_loss] * config.jitters + [field_loss]))
            if not torch.isfinite(torch.tensor(losses[-1])):
                raise ValueError(f"The loss of step {step} is {losses[-1]}. Train with a lower learning rate.")
            if step <= config.clipped:
                nn.utils.clip_grad_norm_(parameters, config.clip)
            optimiser.step()
            if tell:
                tell(step, losses[-1])
    jbu.eval()
    return losses


def _squared_distances(points: Tensor) -> Tensor:
    """(B, N, D) → (B, N, N)."""
    norms = points.square().sum(-1)
    return (norms[:, :, None] + norms[:, None] - 2 * points @ points.mT).clamp(min=0)
