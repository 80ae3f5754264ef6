"""Implicit FeatUp: one network per image from position to features, for inspecting features only.

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

from segmed.methods.featup.featup_training import (
    AttentionDownsampler,
    Encode,
    Reconstruction,
    accumulate,
    look_through,
    sample_jitters,
)


@dataclass(frozen=True)
class ImplicitConfig:
    """The published settings, except for 300 views and 300 steps instead of 3000 and 1200.

    Attributes:
        views: Number of views of the image that are encoded.
        fitted: Number of these views to which the principal components are fitted.
        steps: Steps of NAdam with its default learning rate, 2e-3.
        per_step: Number of views compared in a step.
        components: Principal components of the features that are learned.
        frequencies: Number of Fourier frequencies per coordinate.
        factor: Fine pixels per side of a token.
        padding: Largest distance by which a view may extend beyond the image, as a share of its side (30 of
            224 px).
        zoom: Largest enlargement of a view.
        seed: Seed of all random draws.
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
        sizes = (
            self.views,
            self.fitted,
            self.steps,
            self.per_step,
            self.components,
            self.frequencies,
            self.factor,
        )
        if min(sizes) < 1 or self.zoom < 1:
            raise ValueError(
                f"views, fitted, steps, per_step, components, frequencies and factor are {sizes}, and zoom "
                f"is {self.zoom}; each must be at least 1."
            )


class ImplicitUpsampler(nn.Module):
    """A network from position and colour of a pixel to its features, with Fourier features.

    Args:
        channels: Channels of the features.
        frequencies: Number of frequencies per coordinate, from exp(-2) to exp(10).
        hidden: Channels of the hidden layers.
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
        """Compute the features of each pixel, (B, 3, H, W) → (B, C, H, W)."""
        # Each pixel has five coordinates u = (y, x, r, g, b), and the network gets sin(u w + a) and cos(u w +
        # b) for all frequencies w with learned phases a and b, together with the colour.
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
    """Compute the features of one image at high resolution with a network trained on that image alone.

    Args:
        image: The image (1, 3, S, S) in [0, 1].
        encode: A frozen encoder.
        config: The settings.
        tell: Function called with the number of encoder passes and training steps done, and their total.

    Returns:
        The features, (1, C, factor · h, factor · w).
    """
    # Minimise over the network F and the downsampler D the mean over views v of |D(v(F(x))) - E(v(x))|² / (2
    # s²) + log s, with E the encoder and s a learned uncertainty, plus terms for the length and the
    # smoothness of the features. All is computed in the space of the leading principal components, (N, C, h,
    # w) → (N, components, h, w).
    config = config or ImplicitConfig()
    generator = Generator().manual_seed(config.seed)
    views = sample_jitters(config.views, config.padding, config.zoom, generator)
    encoded: list[Tensor] = []
    with torch.no_grad():
        side = config.factor * encode(image).shape[-1]
        for n in range(config.views):
            encoded.append(encode(look_through(image, views[n : n + 1])))
            if tell:
                tell(n + 1, config.views + config.steps)
        mean, basis = _principal_components(torch.cat(encoded[: config.fitted]), config.components)
        targets = torch.einsum("bchw,cd->bdhw", torch.cat(encoded) - mean, basis)
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
                coarse, target = downsample(look_through(fine, views[n : n + 1])), targets[n : n + 1]
                length = F.mse_loss(coarse.norm(dim=1), target.norm(dim=1))
                return (reconstruction(coarse, target) + 0.001 * length) / config.per_step

            optimiser.zero_grad()
            losses = [lambda fine, n=n: view_loss(fine, n) for n in chosen]
            accumulate(network(small), [*losses, _roughness])
            optimiser.step()
            if tell:
                tell(config.views + step + 1, config.views + config.steps)
    with torch.no_grad():
        return torch.einsum("bdhw,cd->bchw", network.eval()(small), basis) + mean


def _roughness(fine: Tensor) -> Tensor:
    """Penalty for rough features: variation of their length, and distance to a blurred copy."""
    length = fine.norm(dim=1)
    variation = length.diff(dim=1).square().mean() + length.diff(dim=2).square().mean()
    return 0.05 * variation + 0.1 * F.mse_loss(fine, gaussian_blur(fine, [5, 5], [1.0, 1.0]))


def _principal_components(features: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean (1, C, 1, 1) and orthonormal directions (C, at most `count`) of features (N, C, h, w)."""
    tokens = features.movedim(1, -1).flatten(0, 2)
    mean = tokens.mean(0)
    _, directions = torch.linalg.eigh(torch.cov(tokens.T))
    return mean[:, None, None][None], directions[:, -count:]
