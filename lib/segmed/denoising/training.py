"""Training of a DnCNN on the user's own images, with added noise or with the noise of the images.

Sources: Zhang et al., Beyond a Gaussian Denoiser, 2017 (added noise, loss, optimiser); Krull, Buchholz and
Jug, Noise2Void, 2019 (training on noisy images alone: some pixels are replaced by neighbours and must be
predicted); Gudbjartsson and Patz, The Rician Distribution of Noisy MRI Data, 1995.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from segmed.denoising.dncnn import DnCnn, DnCnnConfig
from segmed.imaging.picture import Picture

_HIDDEN = 0.02  # share of the pixels that are replaced and predicted
_NEIGHBOURS = 2  # largest distance in px of the replacing neighbour along each axis
_TRIES = 50  # attempts to find a patch that is not uniform


@dataclass(frozen=True)
class DenoisingConfig:
    """The settings of the training; the paper trains 180 passes over 238,400 patches.

    Attributes:
        noise: `gaussian` (CT) or `rician` (MR) noise is added to images that are assumed to be clean; `own`
            trains on the images' own noise, which must be independent between pixels.
        sigma: Largest standard deviation of the added noise in grey values (0 to 255); that of each patch is
            random.
        steps: Optimiser steps.
        batch: Patches per step.
        patch: Side of a patch in px.
        learning_rate: Initial learning rate, divided by five after 1/6, 2/6 and 3/6 of the steps.
        seed: Seed of patches, noise and weights.
    """

    noise: Literal["gaussian", "rician", "own"] = "gaussian"
    sigma: float = 25.0
    steps: int = 2000
    batch: int = 32
    patch: int = 40
    learning_rate: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.noise not in ("gaussian", "rician", "own"):
            raise ValueError(f"noise is {self.noise!r}; it must be gaussian, rician or own.")
        if (
            not 0 < self.sigma <= 255
            or min(self.steps, self.batch) < 1
            or self.patch < 8
            or self.learning_rate <= 0
        ):
            raise ValueError(
                f"{self} is not allowed: sigma must be above 0 and up to 255, steps and batch 1 or more, "
                "patch 8 or more, and learning_rate above 0."
            )


def train_dncnn(
    pictures: Sequence[Picture],
    config: DenoisingConfig | None = None,
    shape: DnCnnConfig | None = None,
    device: str = "cpu",
    tell: Callable[[int, int, float], None] | None = None,
) -> DnCnn:
    """Train a network on pictures.

    Args:
        pictures: Windowed volumes; colours are converted to grey.
        config: The settings of the training.
        shape: The shape of the network, or None for the default.
        device: The device, such as `cpu`.
        tell: Function called with the step, the number of steps and the squared error per pixel (values in
            [0, 1]).

    Returns:
        The network, in evaluation mode.

    Raises:
        ValueError: If all pictures are smaller than a patch.
    """
    # The loss is the sum of (f(x) - y)² over the counted pixels, over 2 B: for added noise, x = y + noise and
    # all pixels count; for the images' own noise, y is the noisy image, and only the pixels replaced in x
    # count.
    config = config or DenoisingConfig()
    usable = [p for p in pictures if min(p.shape[:2]) >= config.patch]
    if not usable:
        raise ValueError(
            f"None of {len(pictures)} images has slices of {config.patch} px or more. Give larger images."
        )
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    model = DnCnn(shape).to(device).train()
    optimiser = torch.optim.Adam(model.parameters(), config.learning_rate)
    milestones = [max(config.steps * n // 6, 1) for n in (1, 2, 3)]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, milestones, 0.2)
    for step in range(1, config.steps + 1):
        clean = torch.from_numpy(np.stack([_patch(usable, config.patch, rng) for _ in range(config.batch)]))[
            :, None
        ]
        inputs, targets, counted = training_pair(clean.float().div(255), config)
        error = (model(inputs.to(device)) - targets.to(device)).square() * counted.to(device)
        optimiser.zero_grad()
        (error.sum() / (2 * config.batch)).backward()
        optimiser.step()
        schedule.step()
        if tell:
            tell(step, config.steps, float(error.detach().sum() / counted.expand_as(error).sum()))
    return model.eval()


def training_pair(patches: Tensor, config: DenoisingConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Make the inputs of the network, their targets, and the weights of the pixels.

    Args:
        patches: Patches (B, 1, P, P) in [0, 1].
        config: The settings with the kind of noise.

    Returns:
        Three tensors (B, 1, P, P).
    """
    if config.noise == "own":
        hidden = torch.rand_like(patches) < _HIDDEN
        return torch.where(hidden, _neighbours(patches), patches), patches, hidden.float()
    sigma = torch.rand(len(patches), 1, 1, 1) * config.sigma / 255
    return noisy(patches, sigma, config.noise), patches, torch.ones_like(patches)


def noisy(patches: Tensor, sigma: Tensor | float, kind: str) -> Tensor:
    """Add `gaussian` or `rician` noise of standard deviation `sigma` to values in [0, 1].

    Rician noise is the magnitude of a complex value with Gaussian noise in both parts, |x + n_1 + i n_2|.
    """
    real = patches + sigma * torch.randn_like(patches)
    return torch.hypot(real, sigma * torch.randn_like(patches)) if kind == "rician" else real


def _neighbours(patches: Tensor) -> Tensor:
    """Replace each pixel by a random other pixel in its neighbourhood, (B, 1, P, P) → (B, 1, P, P)."""
    side = 2 * _NEIGHBOURS + 1
    wide = torch.nn.functional.pad(patches, [_NEIGHBOURS] * 4, mode="reflect")
    around = torch.nn.functional.unfold(wide, side)  # (B, side², P·P)
    drawn = torch.randint(side * side - 1, (len(patches), 1, around.shape[2]))
    drawn += drawn >= side * side // 2  # not the pixel itself
    return around.gather(1, drawn).view_as(patches)


def _patch(pictures: Sequence[Picture], side: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a patch (side, side), uint8, from a picture, avoiding uniform background where possible."""
    patch = np.zeros((side, side), np.uint8)
    for _ in range(_TRIES):
        picture = pictures[int(rng.integers(len(pictures)))]
        i, j, k = (int(rng.integers(n - m + 1)) for n, m in zip(picture.shape, (side, side, 1), strict=True))
        part = picture.array[i : i + side, j : j + side, k]
        patch = part if part.ndim == 2 else part.mean(axis=-1).astype(np.uint8)
        if np.ptp(patch) > 8:
            break
    return patch
