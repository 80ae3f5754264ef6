"""One small network per image that knows its features at every place: slow, for looking at features only.

Source: Fu et al., FeatUp: A Model-Agnostic Framework for Features at Any Resolution (ICLR 2024).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torchvision.transforms.v2.functional import gaussian_blur
from transformers.models.sam.modeling_sam import SamLayerNorm

from segmed.methods.featup_training import (
    AttentionDownsampler,
    Encode,
    Reconstruction,
    accumulate,
    look_through,
    sample_jitters,
)


@dataclass(frozen=True)
class ImplicitConfig:
    """The published settings, but for 300 views and steps instead of 3000 and 1200.

    Attributes:
        views: of the image that the encoder sees.
        fitted: of these, those on which the principal components are fitted.
        steps: of NAdam at its own rate, 2e-3.
        per_step: views compared in a step.
        components: principal components of the features that are learned.
        frequencies: of the Fourier features, per coordinate.
        factor: fine pixels per side of a token.
        padding: by how much a view may leave the image, as a share of its side (30 of 224 px).
        zoom: largest enlargement of a view.
        seed: of everything that is drawn.
    """

    views: int = 300
    fitted: int = 50
    steps: int = 300
    per_step: int = 10
    components: int = 128
    frequencies: int = 30
    factor: int = 4
    padding: float = 30 / 224
    zoom: float = 1.8
    seed: int = 0

    def __post_init__(self) -> None:
        sizes = (self.views, self.fitted, self.steps, self.per_step, self.components, self.frequencies, self.factor)
        if min(sizes) < 1 or self.zoom < 1:
            raise ValueError(
                f"views, fitted, steps, per_step, components, frequencies and factor are {sizes} and zoom is "
                f"{self.zoom}; each must be at least 1."
            )


class ImplicitUpsampler(nn.Module):
    """Place and colour of a pixel to its features, through Fourier features and two hidden layers.

    Args:
        channels: of the features.
        frequencies: per coordinate, from exp(-2) to exp(10).
        hidden: channels of the hidden layers.
    """

    frequencies: Tensor

    def __init__(self, channels: int, frequencies: int = 30, hidden: int = 128) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.linspace(-2, 10, frequencies).exp(), persistent=False)
        self.phases = nn.Parameter(torch.zeros(2, 5, frequencies))
        inputs = 2 * 5 * frequencies + 3
        self.layers = nn.Sequential(
            SamLayerNorm(inputs, data_format="channels_first"),
            nn.Dropout2d(0.2),
            nn.Conv2d(inputs, hidden, 1),
            nn.ReLU(),
            nn.Dropout2d(0.2),
            SamLayerNorm(hidden, data_format="channels_first"),
            nn.Conv2d(hidden, hidden, 1),
            nn.ReLU(),
            nn.Conv2d(hidden, channels, 1),
        )

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, C, H, W)."""
        low, high = image.amin((2, 3), keepdim=True), image.amax((2, 3), keepdim=True)
        colour = (image - low) / (high - low).clamp(min=1e-8) - 0.5
        y, x = (torch.linspace(-1, 1, side, device=image.device) for side in image.shape[2:])
        place = torch.stack(torch.meshgrid(y, x, indexing="ij")).expand(len(image), -1, -1, -1)
        angles = torch.cat([place, colour], 1)[:, :, None] * self.frequencies[:, None, None]
        waves = [
            wave(angles + phase[..., None, None]).flatten(1, 2)
            for wave, phase in zip((torch.sin, torch.cos), self.phases, strict=True)
        ]
        return self.layers(torch.cat([*waves, colour], 1))


def upsample_implicitly(
    image: Tensor,
    encode: Encode,
    config: ImplicitConfig | None = None,
    tell: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Features of one image at high resolution, by a network trained on it alone.

    Args:
        image: (1, 3, S, S) in [0, 1].
        encode: a frozen encoder.
        config: how long and how fine.
        tell: called with the passes of the encoder and steps done, and how many there are.

    Returns:
        (1, C, factor · h, factor · w)
    """
    config = config or ImplicitConfig()
    generator = Generator().manual_seed(config.seed)
    views = sample_jitters(config.views, config.padding, config.zoom, generator)
    wanted: list[Tensor] = []
    with torch.no_grad():
        side = config.factor * encode(image).shape[-1]
        for n in range(config.views):
            wanted.append(encode(look_through(image, views[n : n + 1])))
            if tell:
                tell(n + 1, config.views + config.steps)
        mean, basis = _principal_components(torch.cat(wanted[: config.fitted]), config.components)
        targets = torch.einsum("bchw,cd->bdhw", torch.cat(wanted) - mean, basis)
    small = F.adaptive_avg_pool2d(image, side)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        network = ImplicitUpsampler(basis.shape[1], config.frequencies).to(image.device)
        downsample = AttentionDownsampler(basis.shape[1], config.factor).to(image.device)
        reconstruction = Reconstruction(basis.shape[1]).to(image.device)
        parameters = [p for module in (network, downsample, reconstruction) for p in module.parameters()]
        optimiser = torch.optim.NAdam(parameters)
        for step in range(config.steps):
            chosen = torch.randint(config.views, (config.per_step,), generator=generator).tolist()

            def view_loss(fine: Tensor, n: int) -> Tensor:
                found, target = downsample(look_through(fine, views[n : n + 1])), targets[n : n + 1]
                length = F.mse_loss(found.norm(dim=1), target.norm(dim=1))
                return (reconstruction(found, target) + 0.001 * length) / config.per_step

            optimiser.zero_grad()
            losses = [lambda fine, n=n: view_loss(fine, n) for n in chosen]
            accumulate(network(small), [*losses, _roughness])
            optimiser.step()
            if tell:
                tell(config.views + step + 1, config.views + config.steps)
    with torch.no_grad():
        return torch.einsum("bdhw,cd->bchw", network.eval()(small), basis) + mean


def _roughness(fine: Tensor) -> Tensor:
    """Total variation of the features' length, and what a blur takes away."""
    length = fine.norm(dim=1)
    variation = length.diff(dim=1).square().mean() + length.diff(dim=2).square().mean()
    return 0.05 * variation + 0.1 * F.mse_loss(fine, gaussian_blur(fine, [5, 5], [1.0, 1.0]))


def _principal_components(features: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean (1, C, 1, 1) and orthonormal directions (C, at most `count`) of features (N, C, h, w)."""
    tokens = features.movedim(1, -1).flatten(0, 2)
    mean = tokens.mean(0)
    _, directions = torch.linalg.eigh(torch.cov(tokens.T))
    return mean[:, None, None][None], directions[:, -count:]
