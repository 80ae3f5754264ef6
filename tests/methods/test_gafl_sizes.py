"""The learned filter of the spectrum on images of another size."""

from __future__ import annotations

import torch
from segmed.methods.gafl.adaptive_filter import AdaptiveFilter, resample_coefficients
from torch import Tensor


def disturb(layer: torch.nn.Module, seed: int = 0) -> None:
    """Random parameters, most of them positive, as relu and clamp would hide the others."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in layer.parameters():
        parameter.data = parameter.data + torch.randn(parameter.shape, generator=generator) * 0.5 + 0.3


def waves(height: int, width: int) -> Tensor:
    """(1, 3, height, width): a few waves that 12 px can show, sampled from the top left corner."""
    y, x = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
    parts = [(0, 0, 0.0), (1, 0, 0.4), (0, 2, 1.0), (3, 1, 0.2), (-2, 4, 2.0), (5, 5, 0.7)]
    image = sum(torch.cos(2 * torch.pi * (a * y + b * x) + phase) for a, b, phase in parts)
    return torch.stack([image, 0.5 * image.roll(1, 0) + 0.1, image.square() * 0 + 0.3])[None]


def test_a_filter_of_another_size_does_the_same() -> None:
    small, large = AdaptiveFilter("spectrum", (3, 13, 12)), AdaptiveFilter("spectrum", (3, 39, 48))
    disturb(small)
    large.load_state_dict(small.state_dict())
    y, x = slice(None, None, 3), slice(None, None, 4)
    coarse = small(waves(39, 48)[..., y, x])
    assert (coarse - waves(39, 48)[..., y, x]).abs().max() > 0.1
    assert torch.allclose(large(waves(39, 48))[..., y, x], coarse, atol=1e-4)
    assert (large.weight[:, 20, 3] == 1).all()  # beyond what the small image shows


def test_resampling_keeps_what_both_sizes_show() -> None:
    coefficients = torch.rand(3, 16, 9)
    assert torch.equal(resample_coefficients(coefficients, 16, 16, 1.0), coefficients)
    assert torch.equal(
        resample_coefficients(resample_coefficients(coefficients, 33, 40, 1.0), 16, 16, 1.0), coefficients
    )
    phases = resample_coefficients(coefficients, 24, 24, 0.0)
    assert phases.shape == (3, 24, 13)
    assert torch.equal(phases[:, -3, :9], coefficients[:, -3])
    assert phases[:, 12].abs().max() == 0
    assert phases[..., 9:].abs().max() == 0
