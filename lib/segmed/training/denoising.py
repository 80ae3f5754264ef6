"""Teaching a DnCNN on one's own images, with noise that is added or with the noise that is there.

Sources: Zhang et al., Beyond a Gaussian Denoiser, 2017 (added noise, loss, optimiser); Krull, Buchholz and Jug,
Noise2Void, 2019 (learning from noisy images alone: some pixels are replaced by neighbours and have to be guessed);
Gudbjartsson and Patz, The Rician Distribution of Noisy MRI Data, 1995.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from segmed.imaging.picture import Picture
from segmed.methods.dncnn import DnCnn, DnCnnConfig

_HIDDEN = 0.02  # share of the pixels to be guessed
_NEIGHBOURS = 2  # px to each side from which the replacement comes
_TRIES = 50  # patches that are looked at to find one that shows something


@dataclass(frozen=True)
class DenoisingConfig:
    """How the network learns; the paper trains 180 passes over 238,400 patches.

    Attributes:
        noise: `gaussian` (CT) or `rician` (MR) is added to images that are taken for clean; `own` learns from the
            images' own noise, which has to differ from pixel to pixel.
        sigma: largest standard deviation of the added noise, of 255; each patch gets one up to it.
        steps: of the optimiser.
        batch: patches per step.
        patch: side of a patch in px.
        learning_rate: at the start; a fifth of it from 1/6, 2/6 and 3/6 of the steps on.
        seed: of patches, noise and weights.
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
            raise ValueError(f"The noise {self.noise!r} must be gaussian, rician or own.")
        if not 0 < self.sigma <= 255 or min(self.steps, self.batch) < 1 or self.patch < 8 or self.learning_rate <= 0:
            raise ValueError(
                f"{self} is not usable: sigma above 0 and up to 255, steps and batch 1 or more, patch 8 or more, "
                "learning_rate above 0."
            )


def train_dncnn(
    pictures: Sequence[Picture],
    config: DenoisingConfig | None = None,
    shape: DnCnnConfig | None = None,
    device: str = "cpu",
    tell: Callable[[int, int, float], None] | None = None,
) -> DnCnn:
    """Learn from pictures.

    Args:
        pictures: windowed volumes; colours are made grey.
        config: noise and schedule.
        shape: of the network.
        device: such as `cpu`.
        tell: told step, steps and the loss per pixel (of values in [0, 1], squared).

    Returns:
        The network, in eval mode.

    Raises:
        ValueError: no picture is as large as a patch.
    """
    config = config or DenoisingConfig()
    usable = [p for p in pictures if min(p.shape[:2]) >= config.patch]
    if not usable:
        raise ValueError(f"None of {len(pictures)} images has slices of {config.patch} px or more. Give larger images.")
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    model = DnCnn(shape).to(device).train()
    optimiser = torch.optim.Adam(model.parameters(), config.learning_rate)
    milestones = [max(config.steps * n // 6, 1) for n in (1, 2, 3)]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, milestones, 0.2)
    for step in range(1, config.steps + 1):
        clean = torch.from_numpy(np.stack([_patch(usable, config.patch, rng) for _ in range(config.batch)]))[:, None]
        shown, wanted, counted = training_pair(clean.float().div(255), config)
        off = (model(shown.to(device)) - wanted.to(device)).square() * counted.to(device)
        optimiser.zero_grad()
        (off.sum() / (2 * config.batch)).backward()
        optimiser.step()
        schedule.step()
        if tell:
            tell(step, config.steps, float(off.detach().sum() / counted.expand_as(off).sum()))
    return model.eval()


def training_pair(patches: Tensor, config: DenoisingConfig) -> tuple[Tensor, Tensor, Tensor]:
    """What the network is shown, what it should answer, and the pixels that count.

    Args:
        patches: (B, 1, P, P) in [0, 1].
        config: the kind of noise.

    Returns:
        Three tensors of the shape of `patches`.
    """
    if config.noise == "own":
        hidden = torch.rand_like(patches) < _HIDDEN
        return torch.where(hidden, _neighbours(patches), patches), patches, hidden.float()
    sigma = torch.rand(len(patches), 1, 1, 1) * config.sigma / 255
    return noisy(patches, sigma, config.noise), patches, torch.ones_like(patches)


def noisy(patches: Tensor, sigma: Tensor | float, kind: str) -> Tensor:
    """Add noise of standard deviation `sigma` (of 1), `gaussian` or `rician`."""
    real = patches + sigma * torch.randn_like(patches)
    return torch.hypot(real, sigma * torch.randn_like(patches)) if kind == "rician" else real


def _neighbours(patches: Tensor) -> Tensor:
    """Each pixel replaced by another one nearby, drawn at random."""
    side = 2 * _NEIGHBOURS + 1
    wide = torch.nn.functional.pad(patches, [_NEIGHBOURS] * 4, mode="reflect")
    around = torch.nn.functional.unfold(wide, side)  # (B, side², P·P)
    drawn = torch.randint(side * side - 1, (len(patches), 1, around.shape[2]))
    drawn += drawn >= side * side // 2  # not the pixel itself
    return around.gather(1, drawn).view_as(patches)


def _patch(pictures: Sequence[Picture], side: int, rng: np.random.Generator) -> np.ndarray:
    """(side, side) uint8 out of a picture; empty background is passed over where possible."""
    patch = np.zeros((side, side), np.uint8)
    for _ in range(_TRIES):
        picture = pictures[rng.integers(len(pictures))]
        i, j, k = (int(rng.integers(n - m + 1)) for n, m in zip(picture.shape, (side, side, 1), strict=True))
        part = picture.array[i : i + side, j : j + side, k]
        patch = part if part.ndim == 2 else part.mean(axis=-1).astype(np.uint8)
        if np.ptp(patch) > 8:
            break
    return patch
