"""A layer on interpolated maps and places beside the same on an input that is built."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from segmed.methods.imedsam.coordinate_layer import CoordinateLayer, encode_positions
from torch import Tensor


def test_positions_of_the_paper() -> None:
    x, y = 0.3, -0.7
    encoded = encode_positions(torch.tensor([x, y]))
    angles = [2**octave * math.pi * p for p in (x, y) for octave in range(10)]
    wanted = [x, y, *map(math.sin, angles), *map(math.cos, angles)]
    assert encoded.shape == (42,)
    assert torch.allclose(encoded, torch.tensor(wanted), atol=2e-4)


def test_positions_of_the_code() -> None:
    encoded = encode_positions(torch.tensor([0.3, -0.7]), published=True)
    angles = [2 * math.pi * 2 ** (10 * f / 9) * p for p in (0.3, -0.7, -1.0) for f in range(10)]
    assert encoded.shape == (63,)
    assert torch.allclose(encoded[:3], torch.tensor([0.3, -0.7, -1.0]))
    assert torch.allclose(encoded[3:33], torch.tensor([math.sin(a) for a in angles]), atol=1e-3)


@pytest.mark.parametrize("shape", [(20, 31), (5, 3), (1, 9), (6, 6)])
@pytest.mark.parametrize("published", [False, True])
def test_layer_on_built_input(shape: tuple[int, int], published: bool) -> None:
    """Wide maps with few places are tabled, narrow ones not; values and gradients are those of interpolating
    first."""
    torch.manual_seed(0)
    wide, narrow = torch.randn(1, 3, 4, 200), torch.randn(2, 6, 6, 5, requires_grad=True)
    done = torch.randn(2, 2, 3, 7, requires_grad=True)
    encoding = 63 if published else 42
    weight, bias = torch.randn(7, 205 + encoding, requires_grad=True), torch.randn(7)
    pixels = torch.stack([torch.randperm(shape[0] * shape[1]) for _ in range(2)])
    layer = CoordinateLayer(weight, bias, (wide, narrow), shape, pixels.shape[1], published, done)
    ours = layer(pixels).unflatten(0, (2, -1))

    def resampled(maps: Tensor) -> Tensor:
        fine = F.interpolate(maps.permute(0, 3, 1, 2), shape, mode="bilinear", align_corners=False)
        return fine.flatten(2).transpose(1, 2).expand(2, -1, -1)

    y, x = torch.meshgrid(*(torch.arange(1, 2 * side, 2) / side - 1 for side in shape), indexing="ij")
    where = encode_positions(torch.stack([x, y], -1).flatten(0, 1), published).expand(2, -1, -1)
    built = torch.cat([resampled(wide), resampled(narrow), where], -1)
    theirs = torch.stack(
        [v[p] for v, p in zip(F.linear(built, weight, bias) + resampled(done), pixels, strict=True)]
    )
    assert torch.allclose(ours, theirs, atol=2e-4)
    given = (weight, narrow, done)
    factor = torch.randn(ours.shape)
    one, other = (torch.autograd.grad((v * factor).sum(), given, retain_graph=True) for v in (ours, theirs))
    assert all(torch.allclose(a, b, atol=1e-3) for a, b in zip(one, other, strict=True))


def test_one_list_of_pixels_serves_all_objects() -> None:
    torch.manual_seed(0)
    maps, weight, bias = torch.randn(3, 4, 4, 60), torch.randn(8, 102), torch.randn(8)
    layer = CoordinateLayer(weight, bias, (maps,), (10, 12), 120)
    pixels = torch.arange(120)[None]
    assert torch.equal(layer(pixels), layer(pixels.expand(3, -1)))
    parts = torch.cat([layer(p).unflatten(0, (3, -1)) for p in pixels.split(50, 1)], 1)
    assert torch.allclose(parts.flatten(0, 1), layer(pixels), atol=1e-5)
