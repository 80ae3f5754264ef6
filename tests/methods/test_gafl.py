"""The learned filter of the spectrum: formulas by hand, identity, gradients; and SAM behind it."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from segmed.imaging.prompts import SlicePrompt
from segmed.methods.base.trainable import load_trained, save_trained
from segmed.methods.gafl.adaptive_filter import (
    ACTIVATIONS,
    VARIANTS,
    AdaptiveFilter,
    Variant,
)
from segmed.methods.gafl.gafl import Gafl, GaflConfig
from segmed.methods.sam.medsam import MedSam
from segmed.sam.cpu.precision import prepare_encoder
from tiny_sam import tiny_sam
from transformers import SamModel

SIZE = 64
PROMPTS = [[SlicePrompt(box=(6.0, 8.0, 40.0, 30.0))]]


@pytest.fixture(scope="module")
def model() -> SamModel:
    return tiny_sam(3, SIZE)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """(51, 70), smooth, odd, not square."""
    y, x = np.mgrid[:51, :70]
    return (120 + 60 * np.sin(x / 9) * np.cos(y / 7) + 40 * (np.hypot(x - 25, y - 20) < 14)).astype(np.uint8)


def disturb(layer: torch.nn.Module, seed: int = 0) -> None:
    """Random parameters, most of them positive, as relu and clamp would hide the others."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in layer.parameters():
        parameter.data = parameter.data + torch.randn(parameter.shape, generator=generator) * 0.5 + 0.3


def gradients(layer: torch.nn.Module) -> dict[str, float]:
    return {n: 0.0 if p.grad is None else p.grad.abs().max().item() for n, p in layer.named_parameters()}


def by_hand(images: np.ndarray, layer: AdaptiveFilter) -> np.ndarray:
    """The published definitions, in double precision."""
    axes, scale = (1, 2, 3), 1.0 if layer.strict_reference else np.sqrt(np.prod(images.shape[1:]))
    spectrum = np.fft.rfftn(images, axes=axes) / scale
    s, phi = np.abs(spectrum), np.angle(spectrum)
    p = {n: v.detach().double().numpy() for n, v in layer.named_parameters()}
    if layer.variant == "spectrum":
        changed = np.maximum(p["weight"], 0) * spectrum
    elif layer.variant == "spectrum_log":
        changed = (np.exp(np.maximum(p["weight"], 0) * np.log(1 + s)) - 1) * np.exp(1j * phi)
    elif layer.variant == "phase":
        changed = spectrum * np.exp(1j * np.clip(p["weight"], 0, 2 * np.pi))
    else:
        q = {n: np.maximum(v, 0) for n, v in p.items()}
        changed = (q["weight2"] * np.tanh(q["weight1"] * s + q["bias1"]) + q["bias2"]) * np.exp(1j * phi)
    return np.fft.irfftn(changed * scale, s=images.shape[1:], axes=axes)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_published_layer(variant: Variant) -> None:
    layer = AdaptiveFilter(variant, (3, 15, 22), "tanh", strict_reference=True)
    disturb(layer)
    images = torch.rand(2, 3, 15, 22, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = by_hand(images.numpy(), layer)
    assert np.abs(expected - images.numpy()).max() > 0.1
    # three decades of magnitudes and their exponents in single precision
    assert np.allclose(
        layer(images).detach().numpy(), expected, rtol=1e-3, atol=2e-3 * np.abs(expected).max()
    )


def test_free_phases_go_below_zero() -> None:
    layers = [AdaptiveFilter("phase", (1, 9, 8), strict_reference=strict) for strict in (True, False)]
    for layer in layers:
        layer.weight.data.fill_(-0.7)
    image = torch.rand(1, 1, 9, 8)
    assert torch.allclose(layers[0](image), image, atol=1e-6)
    expected = np.fft.irfftn(np.fft.rfftn(image[0].numpy()) * np.exp(-0.7j), s=(1, 9, 8))
    assert np.allclose(layers[1](image)[0].detach().numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_untrained_it_changes_nothing(variant: Variant, strict: bool) -> None:
    for height, width in ((32, 32), (33, 47), (48, 31)):
        layer = AdaptiveFilter(variant, (3, height, width), strict_reference=strict)
        point = torch.zeros(3, height, width)
        point[:, 5, 7] = 1
        images = torch.stack(
            [torch.rand(3, height, width), point, torch.full((3, height, width), 0.4), 0 * point]
        )
        found = layer(images)
        assert found.shape == images.shape
        assert (found - images).abs().max() <= 1e-5


def test_other_activations_are_used() -> None:
    image = torch.rand(1, 1, 16, 16)
    found = [AdaptiveFilter("general_spectrum", (1, 16, 16), name)(image) for name in ACTIVATIONS]
    assert all((a - b).abs().max() > 1e-3 for n, a in enumerate(found) for b in found[:n])


def test_parameters_at_the_size_of_sam() -> None:
    with torch.device("meta"):
        counts = [sum(p.numel() for p in AdaptiveFilter(v, (3, 1024, 1024)).parameters()) for v in VARIANTS]
    assert counts == [1_575_936, 1_575_936, 1_575_936, 4 * 1_575_936]


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_learns(model: SamModel, picture: np.ndarray, variant: Variant) -> None:
    method = Gafl(model, GaflConfig(variant, strict_reference=False))
    method.prepare_training()
    before = {n: p.detach().clone() for n, p in method.named_parameters()}
    optimiser = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], 1e-3)
    images = method.prepare(picture)[0][None]
    truth = torch.zeros(1, 1, 51, 70)
    truth[..., 10:30, 10:38] = 1
    for _ in range(2):
        optimiser.zero_grad()
        method.train().loss(images, PROMPTS, truth).backward()
        found = gradients(method.filter)
        assert all(0 < value < float("inf") for value in found.values()), found
        optimiser.step()
    moved = {n for n, p in method.named_parameters() if not torch.equal(p, before[n])}
    assert {n for n in moved if n.startswith("filter.")} == {
        f"filter.{n}" for n, _ in method.filter.named_parameters()
    }
    assert moved <= set(method.trained_names())
    assert any(n.startswith("model.mask_decoder.transformer") for n in moved)
    assert torch.equal(
        method.model.shared_image_embedding.positional_embedding,
        model.shared_image_embedding.positional_embedding,
    )
    assert all(
        torch.equal(p, before[f"model.{n}"]) for n, p in model.named_parameters()
    )  # the given model is untouched


def test_large_encoders_recompute_their_activations(model: SamModel, picture: np.ndarray) -> None:
    found = []
    for recompute in (False, True):
        method = Gafl(model)
        method.prepare_training()
        if recompute:
            method.model.activation_checkpointing_enable()
        images = method.prepare(picture)[0][None]
        method.train().loss(images, PROMPTS, torch.ones(1, 1, 51, 70)).backward()
        assert method.filter.weight.grad is not None
        found.append(method.filter.weight.grad)
    assert torch.allclose(found[0], found[1], rtol=1e-3, atol=1e-9)
    for size in (SIZE, 512):
        method = Gafl(tiny_sam(0, size))
        method.prepare_training()
        assert method.model.is_activation_checkpointing == (size == 512)


def test_published_gradients_are_dead() -> None:
    alive = {}
    for variant in VARIANTS:
        layer = AdaptiveFilter(variant, (3, 16, 16), strict_reference=True)
        layer(torch.rand(2, 3, 16, 16)).square().sum().backward()
        alive |= {f"{variant} {n}": value > 0 for n, value in gradients(layer).items()}
    assert {n for n, value in alive.items() if not value} == {
        "phase weight",
        "general_spectrum bias1",
        "general_spectrum bias2",
    }


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_of_the_image_are_finite(variant: Variant) -> None:
    image = torch.zeros(2, 1, 8, 9)
    image[1] = 0.5
    image.requires_grad_()
    AdaptiveFilter(variant, (1, 8, 9))(image).square().sum().backward()
    assert image.grad is not None
    assert torch.isfinite(image.grad).all()


def test_it_learns_to_take_a_stripe_pattern_out() -> None:
    clean = torch.nn.functional.interpolate(torch.rand(1, 3, 4, 4), (24, 24), mode="bicubic")
    noisy = clean + 0.3 * torch.cos(2 * torch.pi * 8 * torch.arange(24) / 24)
    layer = AdaptiveFilter("spectrum", (3, 24, 24))
    optimiser = torch.optim.Adam(layer.parameters(), 0.05)
    errors = []
    for _ in range(60):
        optimiser.zero_grad()
        error = (layer(noisy) - clean).square().mean()
        error.backward()
        optimiser.step()
        errors.append(error.item())
    assert errors[-1] < 0.05 * errors[0]


def test_half_precision_around_it_changes_nothing() -> None:
    layer = AdaptiveFilter("general_spectrum", (3, 16, 17))
    disturb(layer)
    images = torch.rand(1, 3, 16, 17)
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(images)
    assert found.dtype == torch.float32
    assert torch.equal(found, layer(images))
    assert torch.isfinite(layer(images.bfloat16())).all()


def test_wrong_settings_and_sizes_are_refused(model: SamModel) -> None:
    with pytest.raises(ValueError, match=r"'amplitude' is unknown.*spectrum_log"):
        GaflConfig("amplitude")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'elu' is unknown.*mish"):
        GaflConfig("general_spectrum", "elu")  # type: ignore[arg-type]
    for shape in ((1, 3, SIZE, SIZE + 1), (1, 3, 32, 32), (1, 1, SIZE, SIZE)):
        with pytest.raises(ValueError, match=r"\(3, 64, 64\).*Resample"):
            Gafl(model).encode(torch.zeros(shape))


@torch.inference_mode()
def test_sam_behind_an_untrained_filter(model: SamModel, picture: np.ndarray) -> None:
    plain = MedSam(model)
    wanted = plain.decode(plain.embed([picture]), PROMPTS, (51, 70)).masks
    for variant in VARIANTS:
        method = Gafl(model, GaflConfig(variant)).eval()
        found = method.decode(method.embed([picture]), PROMPTS, (51, 70)).masks
        assert found.shape == (1, 1, 51, 70)
        assert (found - wanted).abs().max() < 1e-4
    normalised = Gafl(model, GaflConfig(normalise=True))
    pixels = normalised.prepare(picture)[0][None]
    mean, sd = (torch.tensor(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    wanted = model.vision_encoder((pixels - mean) / sd).last_hidden_state
    assert torch.allclose(normalised.encode(pixels).features, wanted, atol=1e-4)


@torch.inference_mode()
def test_constant_slices_stay_finite(model: SamModel) -> None:
    for variant in VARIANTS:
        method = Gafl(model, GaflConfig(variant)).eval()
        embedding = method.embed([np.full((40, 50), 7, np.uint8)])
        assert torch.isfinite(method.decode(embedding, PROMPTS, (40, 50)).masks).all()


def test_saved_weights_give_the_same_logits(model: SamModel, picture: np.ndarray, tmp_path: Path) -> None:
    method = Gafl(model, GaflConfig("general_spectrum")).eval()
    disturb(method.filter)
    disturb(method.model.mask_decoder.upscale_conv1)
    save_trained(method, tmp_path, "abc")
    again = Gafl(tiny_sam(3, SIZE), GaflConfig("general_spectrum")).eval()
    load_trained(again, tmp_path, "abc")
    with torch.inference_mode():
        wanted, found, fresh = (
            m.decode(m.embed([picture]), PROMPTS, (51, 70)).masks for m in (method, again, Gafl(model).eval())
        )
    assert (found - wanted).abs().max() <= 1e-6
    assert (fresh - wanted).abs().max() > 1e-2
    with pytest.raises(ValueError, match="do not fit gafl"):
        load_trained(Gafl(model, GaflConfig("phase")), tmp_path, "abc")


@torch.inference_mode()
def test_half_precision_of_the_encoder_keeps_the_mask(model: SamModel, picture: np.ndarray) -> None:
    single = Gafl(model, GaflConfig("general_spectrum")).eval()
    disturb(single.filter)
    half = copy.deepcopy(single)
    prepare_encoder(half.model.vision_encoder, "cpu", "bf16")
    a, b = (m.decode(m.embed([picture]), PROMPTS, (51, 70)).masks > 0 for m in (single, half))
    assert 0.02 < a.float().mean() < 0.98
    assert 2 * (a & b).sum() / (a.sum() + b.sum()) >= 0.99
