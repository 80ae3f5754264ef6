"""Training of high-resolution features that match the encoder's after a learned downsampling.

The encoder encodes the image shifted, enlarged and mirrored; the fine features, transformed in the same way
and then downsampled, must give the same. Source: Fu et al., FeatUp: A Model-Agnostic Framework for Features
at Any Resolution (ICLR 2024).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torchvision.transforms.v2.functional import gaussian_blur

from segmed.methods.featup.jbu import JbuStack

Encode = Callable[[Tensor], Tensor]  # images (B, 3, S, S) in [0, 1] → features (B, C, h, w)


@dataclass(frozen=True)
class JbuTrainingConfig:
    """The published settings, except that lengths are shares of the image's side.

    Attributes:
        steps: Number of training steps, one batch each.
        rate: Learning rate of NAdam.
        jitters: Views of each batch per step.
        padding: Largest distance by which a view may extend beyond the image on each side, as a share of the
            side (20 of 224 px).
        zoom: Largest enlargement of a view.
        directions: Number of random directions in feature space along which features are compared.
        crf_weight: Weight of the loss of the conditional random field.
        crf_points: Number of points sampled for the conditional random field.
        clip: Largest norm of the gradient in the first `clipped` steps.
        clipped: Number of first steps with a clipped gradient.
        seed: Seed of all random draws.
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
                f"steps is {self.steps}, jitters {self.jitters}, directions {self.directions}, crf_points "
                f"{self.crf_points} and zoom {self.zoom}; each must be at least 1."
            )


def sample_jitters(count: int, padding: float, zoom: float, generator: Generator) -> Tensor:
    """Draw views of an image: half of them enlarged, half of them mirrored, all within its padding.

    Args:
        count: Number N of views.
        padding: Padding on each side, as a share of the side.
        zoom: Largest enlargement.
        generator: A random generator on the CPU.

    Returns:
        Matrices (N, 2, 3) for `torch.nn.functional.affine_grid`, for maps of any resolution.
    """
    # A view maps its own coordinates in [-1, 1] to those of the image: x = ±x' / scale + shift, with the
    # shift drawn uniformly such that the view stays within the padded image, |shift| <= 1 + 2 padding - 1 /
    # scale.
    draw = torch.rand(6, count, generator=generator)
    scale = torch.where(draw[0] < 0.5, 1 + (zoom - 1) * draw[1], 1.0)
    mirror = torch.where(draw[2] < 0.5, -1.0, 1.0)
    views = torch.zeros(count, 2, 3)
    views[:, 0, 0], views[:, 1, 1] = mirror / scale, 1 / scale
    views[:, :, 2] = ((2 * draw[3:5] - 1) * (1 + 2 * padding - 1 / scale)).T
    return views


def look_through(maps: Tensor, views: Tensor) -> Tensor:
    """Transform maps (N, C, H, W) into views (N, 2, 3), with reflection beyond the borders: (N, C, H, W)."""
    grid = F.affine_grid(views.to(maps), list(maps.shape), align_corners=False)
    return F.grid_sample(maps, grid, padding_mode="reflection", align_corners=False)


class AttentionDownsampler(nn.Module):
    """Weighted means over patches of blurred features, with weights softmax(w (s · f) + b) of features f.

    The vector s is common to all pixels, while w and b depend on the position in the patch.

    Args:
        channels: Channels of the features.
        patch: Side of a patch in px, by which the resolution is divided.
    """

    def __init__(self, channels: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.score = nn.Sequential(nn.Dropout(0.2), nn.Linear(channels, 1))
        self.weight = nn.Parameter(1 + 0.01 * torch.randn(patch * patch))
        self.bias = nn.Parameter(0.01 * torch.randn(patch * patch))

    def forward(self, fine: Tensor) -> Tensor:
        """Downsample features, (B, C, patch · h, patch · w) → (B, C, h, w)."""
        blurred = gaussian_blur(fine, [5, 5], [1.0, 1.0])
        tiles = blurred.unflatten(3, (-1, self.patch)).unflatten(2, (-1, self.patch))
        tiles = tiles.permute(0, 2, 4, 3, 5, 1).flatten(3, 4)  # (B, h, w, patch², C)
        scores = self.score(tiles)[..., 0]
        if self.training:  # a patch without scores is averaged by position alone
            scores = scores * (torch.rand_like(scores[..., :1]) > 0.2)
        attention = (scores * self.weight + self.bias).softmax(-1)
        return torch.einsum("bhwpc,bhwp->bchw", tiles, attention)


class Reconstruction(nn.Module):
    """Squared error of features, weighted by a learned uncertainty.

    Args:
        channels: Channels of the features.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.log_scale = nn.Conv2d(channels, 1, 1)

    def forward(self, found: Tensor, wanted: Tensor, directions: Tensor | None = None) -> Tensor:
        """Mean of (found - wanted)² / (2 s²) + log s over positions and channels.

        Args:
            found: Downsampled features (B, C, h, w).
            wanted: Features of the encoder (B, C, h, w), from which the standard deviation s (B, 1, h, w) is
                computed.
            directions: Unit vectors (C, D) along which both are compared; None to compare all channels.
        """
        scale = (self.log_scale(wanted) + 0.1).exp().clamp(min=1e-4)
        error = found - wanted
        if directions is not None:
            error = torch.einsum("bchw,cd->bdhw", error, directions)
        return (error.square() / (2 * scale.square()) + scale.log()).mean()


def crf_loss(fine: Tensor, image: Tensor, points: int = 1000, generator: Generator | None = None) -> Tensor:
    """Energy of a random field: feature distance of points that are near or have similar colours.

    With positions p in [0, 1], colours c and features f of random points i and j, it is the mean over all
    pairs of (10 exp(-|p_i - p_j|² / 0.2 - |c_i - c_j|² / 0.3) + 3 exp(-|p_i - p_j|² / 0.01)) |f_i - f_j|².

    Args:
        fine: Features (B, C, H, W).
        image: Images (B, 3, H, W) in [0, 1].
        points: Number of sampled points, the same for the whole batch.
        generator: A random generator on the CPU.
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
    """Backpropagate a sum of losses of `fine` one by one, so that memory holds the graph of only one.

    Args:
        fine: The argument of the losses, with a graph of its own.
        losses: The losses, called in order.

    Returns:
        The sum of the losses.
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
    """Train an upsampler on images alone; the encoder is not changed.

    Args:
        jbu: The upsampler, trained in place; afterwards it is in evaluation mode.
        encode: A frozen encoder.
        batches: Batches of images (B, 3, S, S) in [0, 1], at least as many as steps.
        config: The settings of the training.
        tell: Function called with the step, counted from 1, and its loss.

    Returns:
        The loss of each step.

    Raises:
        ValueError: If a loss is not finite.
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
                    encoded = encode(look_through(images, views))
                directions = F.normalize(
                    torch.randn(jbu.channels, config.directions, generator=generator), dim=0
                )
                downsampled = downsample(look_through(fine, views))
                return reconstruction(downsampled, encoded, directions.to(device)) / config.jitters

            def field_loss(fine: Tensor, images: Tensor = images) -> Tensor:
                small = F.adaptive_avg_pool2d(images, (fine.shape[2], fine.shape[3]))
                return config.crf_weight * crf_loss(fine, small, config.crf_points, generator)

            optimiser.zero_grad()
            losses.append(accumulate(fine, [view_loss] * config.jitters + [field_loss]))
            if not torch.isfinite(torch.tensor(losses[-1])):
                raise ValueError(
                    f"The loss of step {step} is {losses[-1]}, not a finite number. "
                    "Train with a lower learning rate."
                )
            if step <= config.clipped:
                nn.utils.clip_grad_norm_(parameters, config.clip)
            optimiser.step()
            if tell:
                tell(step, losses[-1])
    jbu.eval()
    return losses


def _squared_distances(points: Tensor) -> Tensor:
    """Squared distances of all pairs, |a|² + |b|² - 2 a · b: (B, N, D) → (B, N, N)."""
    norms = points.square().sum(-1)
    return (norms[:, :, None] + norms[:, None] - 2 * points @ points.mT).clamp(min=0)
