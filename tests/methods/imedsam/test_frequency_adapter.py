"""The spectrum as an image, and the chain of adapters beside the encoder's layers."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from segmed.methods.imedsam.frequency_adapter import FrequencyAdapters, Variant, spectrum_image
from segmed.sam.cpu.precision import prepare_encoder
from segmed.sam.tiny import initialised
from segmed.sam.tiny import tiny_config as stem_config
from tiny_sam import tiny_sam
from torch import Tensor, nn
from transformers import SamModel


def adapters_for(model: SamModel, scale: float, variant: Variant = "amplitude") -> FrequencyAdapters:
    torch.manual_seed(1)
    vision = model.config.vision_config
    return FrequencyAdapters(vision.num_hidden_layers, vision.hidden_size, 4, scale, True, variant)


def with_stem() -> SamModel:
    config = stem_config(
        32, hidden=32, layers=2, heads=2, width=32, stem_channels=(8, 16), stem_depths=(0, 1)
    )
    return initialised(config, 3).eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_amplitude_of_a_wave_has_three_peaks() -> None:
    x = torch.arange(32) / 32
    wave = (0.5 + 0.25 * torch.cos(2 * math.pi * 5 * x)).expand(1, 3, 32, 32)
    shown = spectrum_image(wave, "amplitude")
    wanted = torch.zeros(32, 32)
    wanted[16, 16] = 1.0  # the mean, 0.5
    wanted[16, 16 - 5] = wanted[16, 16 + 5] = 0.25  # half of 0.25 each
    assert torch.allclose(shown, wanted.expand(1, 3, 32, 32), atol=1e-5)


def test_phase_of_a_moved_impulse() -> None:
    """Moved by one row, the phase falls by 2 π / S per frequency along y, and is the same for all along x."""
    impulse = torch.zeros(1, 3, 16, 16)
    impulse[:, :, 1, 0] = 1
    shown = spectrum_image(impulse, "phase")
    rows = (-2 * math.pi * torch.arange(-7, 8) / 16 + math.pi * 14 / 16) / (2 * math.pi * 15 / 16)
    # row 0 is the highest frequency, whose phase of -π or π depends on the sign of a zero
    steps = shown[0, 0, 1:].diff(dim=0)
    assert torch.allclose(steps, rows.diff()[:, None].expand(-1, 16), atol=1e-5)


def test_grey_is_the_mean_or_the_first_channel() -> None:
    colour = torch.rand(1, 3, 16, 16)
    mean, first = colour.mean(1, keepdim=True).expand(-1, 3, -1, -1), colour[:, :1].expand(-1, 3, -1, -1)
    assert torch.allclose(spectrum_image(colour, "amplitude"), spectrum_image(mean, "amplitude"), atol=1e-6)
    assert torch.equal(spectrum_image(colour, "amplitude", True), spectrum_image(first, "amplitude", True))
    assert not torch.allclose(
        spectrum_image(colour, "amplitude"), spectrum_image(first, "amplitude"), atol=1e-3
    )


@pytest.mark.parametrize("variant", ["amplitude", "phase"])
@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_slices_of_one_value_stay_finite(variant: Variant, value: float) -> None:
    shown = spectrum_image(torch.full((1, 3, 16, 16), value), variant)
    assert torch.isfinite(shown).all()
    assert 0 <= float(shown.min()) <= float(shown.max()) <= 1


@pytest.mark.parametrize("variant", ["amplitude", "phase"])
def test_the_transform_is_single_precision_whatever_is_around(images: Tensor, variant: Variant) -> None:
    exact = spectrum_image(images, variant)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(spectrum_image(images, variant), exact)
    half = spectrum_image(images.bfloat16(), variant)
    assert half.dtype == torch.float32


@pytest.mark.parametrize("make", [lambda: tiny_sam(0, 64), with_stem])
@torch.inference_mode()
def test_at_scale_zero_the_encoder_is_as_it_was(make: object) -> None:
    model: SamModel = make()  # type: ignore[operator]
    size = model.config.vision_config.image_size
    pixels = torch.rand(2, 3, size, size)
    ours = adapters_for(model, 0.0)(model.vision_encoder, pixels)
    assert torch.equal(ours, model.vision_encoder(pixels).last_hidden_state)


@torch.inference_mode()
def test_half_of_the_chain_is_added_after_each_layer(images: Tensor) -> None:
    """By hooks on the stock encoder, the chain written out."""
    model = tiny_sam(0, 64)
    encoder = model.vision_encoder
    adapters = adapters_for(model, 0.5)
    chain = encoder.patch_embed(spectrum_image(images, "amplitude")) + encoder.pos_embed
    handles = []
    for layer, block in zip(encoder.layers, adapters.blocks, strict=True):
        normal = (chain - chain.mean(-1, keepdim=True)) / (
            chain.var(-1, correction=0, keepdim=True) + 1e-6
        ).sqrt()
        low = nn.functional.gelu(normal @ block.down.weight.T + block.down.bias)
        chain = normal + low @ block.up.weight.T + block.up.bias
        handles.append(layer.register_forward_hook(lambda _m, _i, out, added=0.5 * chain: out + added))
    by_hooks = encoder(images).last_hidden_state
    for handle in handles:
        handle.remove()
    assert torch.allclose(adapters(encoder, images), by_hooks, atol=1e-4)
    assert not torch.allclose(by_hooks, encoder(images).last_hidden_state, atol=1e-2)


def test_phase_is_another_chain(images: Tensor) -> None:
    model = tiny_sam(0, 64)
    with torch.inference_mode():
        one, other = (
            adapters_for(model, 0.5, v)(model.vision_encoder, images) for v in ("amplitude", "phase")
        )
    assert (one - other).abs().max() > 1e-3


@pytest.mark.parametrize("make", [lambda: tiny_sam(0, 64), with_stem])
@torch.inference_mode()
def test_encoder_prepared_in_bf16(make: object) -> None:
    model: SamModel = make()  # type: ignore[operator]
    size = model.config.vision_config.image_size
    pixels = torch.rand(2, 3, size, size)
    adapters = adapters_for(model, 0.5)
    exact = adapters(model.vision_encoder, pixels)
    prepared = prepare_encoder(copy.deepcopy(model.vision_encoder), "cpu", "bf16")
    half = adapters(prepared, pixels)
    assert half.dtype == torch.bfloat16
    assert (half.float() - exact).abs().mean() < 0.02 * exact.std()
    plain = adapters_for(model, 0.0)(prepared, pixels)
    assert torch.equal(plain, prepared(pixels).last_hidden_state)


def test_every_parameter_learns(images: Tensor) -> None:
    model = tiny_sam(0, 64).requires_grad_(False)
    adapters = adapters_for(model, 0.0)
    adapters(model.vision_encoder, images).square().mean().backward()
    assert adapters.scale.grad is not None
    assert (adapters.scale.grad != 0).all()  # from the start, and what lies behind it from the first step on
    adapters = adapters_for(model, 0.1)
    adapters(model.vision_encoder, images).square().mean().backward()
    for name, parameter in adapters.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
