"""Evidence of grey values and colours about a prompt."""

from __future__ import annotations

import pytest
import torch
from segmed.sam.evidence import encode_prompt_channels
from segmed.sam.window import MARK
from torch import Tensor

ALL = torch.ones(1, 64, 64, dtype=torch.bool)


def _disc(inside: float, outside: float, channels: tuple[float, ...] = (1, 1, 1)) -> tuple[Tensor, Tensor]:
    yy, xx = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    truth = (xx - 30) ** 2 + (yy - 34) ** 2 <= 12**2
    noise = 0.05 * torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(0))
    grey = torch.where(truth, inside, outside)[None] * torch.tensor(channels)[:, None, None]
    return (grey + noise).clamp(0, 1)[None], truth[None]


BOX = torch.tensor([[18.0, 22, 42, 46]])


@pytest.mark.parametrize(("inside", "outside"), [(0.7, 0.4), (0.3, 0.6)])
def test_a_box_tells_bright_and_dark_discs_from_their_surroundings(inside: float, outside: float) -> None:
    image, truth = _disc(inside, outside)
    shown = encode_prompt_channels(image, ALL, BOX, None)
    assert torch.allclose(shown[0, 0, 40:60, 50:60], image.mean(1)[0, 40:60, 50:60])
    seen = shown[0, 2] != MARK
    for channel in (1, 2):
        assert ((shown[0, channel] > 0.5) == truth[0])[seen].float().mean() > 0.97


def test_a_click_does_so_without_a_box() -> None:
    image, truth = _disc(0.7, 0.4)
    shown = encode_prompt_channels(image, ALL, None, torch.tensor([[30.0, 34]]))
    seen = shown[0, 1] != MARK
    assert ((shown[0, 1] > 0.5) == truth[0])[seen].float().mean() > 0.95


def test_colours_of_one_brightness_are_told_apart() -> None:
    image, truth = _disc(0.5, 0.5)
    image[0, 0] += 0.3 * truth[0]
    image[0, 1] -= 0.3 * truth[0]
    shown = encode_prompt_channels(image, ALL, BOX, None)
    assert ((shown[0, 2] > 0.5) == truth[0]).float().mean() > 0.95


def test_what_lies_beyond_the_slice_counts_for_nothing() -> None:
    image, truth = _disc(0.1, 0.6)
    image[..., :10] = 0  # padding, as dark as the disc
    valid = ALL.clone()
    valid[..., :10] = False
    shown = encode_prompt_channels(image, valid, BOX, None)
    assert shown[0, 1][truth[0]].mean() > 0.8
    counted = encode_prompt_channels(image, ALL, BOX, None)
    assert shown[0, 1][truth[0]].mean() > counted[0, 1][truth[0]].mean() + 0.02


def test_flat_windows_say_nothing_and_stay_finite() -> None:
    shown = encode_prompt_channels(torch.full((1, 3, 64, 64), 0.5), ALL, BOX, None)
    assert torch.isfinite(shown).all()
    inner = shown[0, 1, 24:44, 20:40]
    assert (inner - inner[0, 0]).abs().max() < 1e-5
