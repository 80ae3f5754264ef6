"""SAM-Adapter: what its parameters count, what each place computes, and the adapter along depth."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from segmed.methods.adapter.adapter import AdapterSam, AdapterSamConfig
from segmed.methods.adapter.adapter_layers import AdaptedAttention, AdaptedConvolutions, Adapter, ParallelMlp
from segmed.sam.cpu.precision import ChunkedMLP, prepare_encoder
from segmed.sam.stem import Residual, build_sam
from segmed.sam.tiny import initialised
from segmed.sam.tiny import tiny_config as stem_config
from tiny_sam import tiny_sam
from torch import Tensor
from transformers import SamConfig, SamModel

LABELS = ("disc", "block")


@pytest.fixture(scope="module")
def base() -> SamModel:
    return tiny_sam(0, 128)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(5, 3, 128, 128, generator=torch.Generator().manual_seed(0))


def stirred(base: SamModel, **settings: object) -> AdapterSam:
    """Adapters that are no longer zero."""
    torch.manual_seed(0)
    ours = AdapterSam(base, AdapterSamConfig(LABELS, **settings)).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for module in ours.modules():
            if isinstance(module, Adapter):
                for parameter in module.parameters():
                    parameter.normal_(0, 0.2)
    return ours


@pytest.mark.parametrize(
    ("depth", "total", "in_encoder"), [(False, 102_512_539, 7_100_928), (True, 106_063_003, 10_651_392)]
)
def test_vit_b_has_the_published_number_of_parameters(depth: bool, total: int, in_encoder: int) -> None:
    with torch.device("meta"):
        vit = build_sam(SamConfig())
    ours = AdapterSam(vit, AdapterSamConfig(depth_adapter=depth))
    sizes = {
        f"{prefix}.{name}": p.numel()
        for prefix, module in ours.named_modules()
        if isinstance(module, Adapter)
        for name, p in module.named_parameters()
    }
    assert sum(p.numel() for p in ours.parameters()) == total
    assert sum(n for name, n in sizes.items() if "vision_encoder" in name) == in_encoder
    assert sum(n for name, n in sizes.items() if "mask_decoder" in name) == 132_352
    assert sum(sizes.values()) == (10_783_744 if depth else 7_233_280)
    assert {name for name, p in ours.named_parameters() if p.requires_grad} == set(ours.trained_names())
    learned = sum(p.numel() for p in ours.parameters() if p.requires_grad)
    assert learned == sum(sizes.values()) + 2_310_607 + 6_476 - 256  # the positional matrix never trains


@pytest.mark.parametrize(("activation", "function"), [("relu", F.relu), ("gelu", F.gelu)])
@torch.no_grad()
def test_an_adapter_is_its_formula(activation: str, function: object) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 4, 8)
    for skip in (True, False):
        adapter = Adapter(8, 0.25, activation, skip, x)  # type: ignore[arg-type]
        assert torch.equal(adapter(x), x if skip else torch.zeros_like(x))
        for parameter in adapter.parameters():
            parameter.normal_()
        down, up = adapter.down, adapter.up
        assert down.weight.shape == (2, 8)
        by_hand = function(x @ down.weight.T + down.bias) @ up.weight.T + up.bias  # type: ignore[operator]
        assert torch.allclose(adapter(x), by_hand + x if skip else by_hand, atol=1e-5)
    assert Adapter(3, 0.25, "relu", True, x).down.out_features == 1


@pytest.mark.parametrize("layer", [0, 1])
@torch.inference_mode()
def test_an_encoder_layer_is_its_formula(base: SamModel, layer: int) -> None:
    ours, plain = stirred(base).model.vision_encoder.layers[layer], base.vision_encoder.layers[layer]
    x = torch.randn(2, 8, 8, 128, generator=torch.Generator().manual_seed(1))
    tokens = plain.layer_norm1(x)
    if plain.window_size:
        windows, padded = plain.window_partition(tokens, plain.window_size)
        attended = plain.window_unpartition(plain.attn(windows)[0], plain.window_size, padded, (8, 8))
    else:
        attended = plain.attn(tokens)[0]
    z = x + ours.attn.space(attended)
    normed = plain.layer_norm2(z)
    assert torch.allclose(ours(x), z + plain.mlp(normed) + 0.5 * ours.mlp.beside(normed), atol=1e-5)


@torch.inference_mode()
def test_a_decoder_layer_is_its_formula(base: SamModel) -> None:
    ours, plain = (
        stirred(base).model.mask_decoder.transformer.layers[1],
        base.mask_decoder.transformer.layers[1],
    )
    generator = torch.Generator().manual_seed(1)
    tokens, keys = (
        torch.randn(1, 1, 5, 64, generator=generator),
        torch.randn(1, 1, 9, 64, generator=generator),
    )
    seen: dict[str, Tensor] = {}
    ours.layer_norm4.register_forward_pre_hook(lambda _, args: seen.update(keys=args[0]))
    ours.mlp.register_forward_hook(lambda _, args, out: seen.update(x=args[0], mlp=out))
    _, changed, attended = ours(tokens, keys, torch.zeros_like(tokens), torch.zeros_like(keys), None)
    skip = ours.layer_norm4[0]
    assert skip.skip
    assert torch.allclose(seen["keys"], keys + attended, atol=1e-5)
    assert torch.allclose(changed, plain.layer_norm4(skip(seen["keys"])), atol=1e-5)
    assert torch.allclose(seen["mlp"], plain.mlp(seen["x"]) + 0.5 * ours.mlp.beside(seen["x"]), atol=1e-5)


def test_a_convolutional_stem_is_adapted_behind_each_of_its_blocks() -> None:
    """Without them, the adapters of the few layers behind the stem can hardly change what it sees."""
    settings: dict[str, Any] = {"stem_channels": (16, 24, 32, 40), "stem_depths": (0, 1, 2, 1)}
    plain = initialised(stem_config(64, hidden=32, heads=2, width=32, **settings), 0)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    ours = AdapterSam(plain, AdapterSamConfig(LABELS))
    blocks = sum(isinstance(m, Residual) for m in plain.vision_encoder.modules())
    places = [m for m in ours.modules() if isinstance(m, AdaptedConvolutions)]
    assert len(places) == blocks == 6, "one, two and one on the way down, two on the way up"
    assert all(place.after.skip for place in places)
    with torch.inference_mode():
        assert torch.equal(ours.encode(images).features, plain.vision_encoder(images).last_hidden_state)
    ours.loss(images, None, torch.ones(2, 1, 20, 20)).backward()
    ups = {n: p for n, p in ours.named_parameters() if n.endswith(".after.up.weight")}
    assert len(ups) == blocks
    assert set(ups) <= set(ours.trained_names())
    assert all(p.grad is not None and p.grad.any() for p in ups.values())
    assert not any(
        p.grad is not None for n, p in ours.named_parameters() if ".patch_embed." in n and ".base." in n
    )


@torch.inference_mode()
def test_adapted_convolutions_are_their_formula() -> None:
    torch.manual_seed(0)
    place = AdaptedConvolutions(Residual(8), Adapter(8, 0.25, "relu", True, torch.zeros(1)))
    for parameter in place.after.parameters():
        parameter.normal_()
    x = torch.randn(2, 8, 4, 6)
    y, after = place.base(x), place.after
    hidden = torch.einsum("cd,bdhw->bchw", after.down.weight, y) + after.down.bias[:, None, None]
    up = torch.einsum("cd,bdhw->bchw", after.up.weight, hidden.relu()) + after.up.bias[:, None, None]
    assert torch.allclose(place(x), y + up, atol=1e-5)


@torch.inference_mode()
def test_attention_along_depth_is_within_places_of_a_stack(base: SamModel) -> None:
    attention = base.vision_encoder.layers[0].attn
    torch.manual_seed(0)
    space, depth = (Adapter(128, 0.25, "relu", skip, attention.proj.weight) for skip in (True, False))
    torch.nn.init.normal_(depth.up.weight)
    x = torch.randn(3 * 4, 5, 5, 128)  # three slices of four windows
    out, _ = AdaptedAttention(attention, space, depth, 3, 4)(x)
    expected = attention(x)[0]
    slices = x.view(3, 4, 5, 5, 128)
    for window, row, column in ((0, 0, 0), (1, 2, 4), (3, 4, 1)):
        along = attention(slices[:, window, row, column].reshape(1, 3, 1, 128))[0].view(3, 128)
        place = out.view(3, 4, 5, 5, 128)[:, window, row, column]
        assert torch.allclose(
            place, expected.view(3, 4, 5, 5, 128)[:, window, row, column] + depth(along), atol=1e-4
        )


@torch.inference_mode()
def test_slices_see_their_own_stack_only(base: SamModel, images: Tensor) -> None:
    ours = stirred(base, depth_adapter=True, depth=2)
    before = ours.encode(images).features
    other = images.clone()
    other[0] = 1 - other[0]
    change = (ours.encode(other).features - before).abs().amax((1, 2, 3))
    assert (change[:2] > 1e-2).all()
    assert (change[2:] < 1e-4).all()
    # the fifth slice is a stack of its own
    assert torch.allclose(ours.encode(images[4:]).features, before[4:], atol=1e-4)
    single = stirred(base, depth_adapter=True)
    assert torch.allclose(single.encode(images[:1]).features, single.encode(images).features[:1], atol=1e-4)


def test_the_depth_adapter_starts_as_nothing_and_learns_from_stacks(base: SamModel, images: Tensor) -> None:
    for depth in (1, 3):
        ours = AdapterSam(base, AdapterSamConfig(LABELS, depth_adapter=True, depth=depth))
        with torch.inference_mode():
            assert torch.equal(ours.encode(images).features, base.vision_encoder(images).last_hidden_state)
        ours.loss(images, None, torch.zeros(5, 1, 40, 40)).backward()
        adapters = [layer.attn.depth for layer in ours.model.vision_encoder.layers]
        assert all((adapter.up.weight.grad is not None) == (depth > 1) for adapter in adapters)
        assert depth == 1 or all(adapter.up.weight.grad.any() for adapter in adapters)


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 0.05)])
@torch.inference_mode()
def test_the_fast_encoder_takes_adapters_in_either_order(
    base: SamModel, images: Tensor, precision: str, tolerance: float
) -> None:
    settings = {"depth_adapter": True, "depth": 2}
    ours = stirred(base, **settings)
    expected = ours.encode(images).features
    after = copy.deepcopy(ours)
    prepare_encoder(after.model.vision_encoder, "cpu", precision)
    prepared = copy.deepcopy(base)
    prepare_encoder(prepared.vision_encoder, "cpu", precision)
    before = AdapterSam(prepared, ours.config).eval()
    before.load_state_dict({name: ours.state_dict()[name] for name in ours.trained_names()}, strict=False)
    for other in (after, before):
        layer = other.model.vision_encoder.layers[0]
        assert isinstance(layer.mlp, ParallelMlp)
        assert type(layer.mlp.base) is ChunkedMLP
        error = (other.encode(images).features - expected).pow(2).mean().sqrt() / expected.std()
        assert error < tolerance


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ratio": 0.0}, r"ratio is 0\.0; allowed are numbers above 0 and up to 1\. Take 0\.25"),
        ({"ratio": 1.5}, r"ratio is 1\.5; allowed are numbers above 0 and up to 1"),
        ({"activation": "tanh"}, r"activation is 'tanh'; allowed are relu, gelu\. Take 'relu'"),
        ({"rate": 0}, r"rate is 0; allowed are numbers above 0 and up to 0\.1\. Take 1e-4"),
        ({"depth": 0, "depth_adapter": True}, r"depth is 0; allowed are whole numbers from 1"),
        ({"depth": 4}, r"depth is 4 without a depth adapter; allowed is only 1 then\. Set depth_adapter"),
    ],
)
def test_useless_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AdapterSamConfig(**settings)  # type: ignore[arg-type]


def test_the_recipe(base: SamModel) -> None:
    recipe = AdapterSam(base).recipe
    assert (recipe.loss, recipe.optimiser, recipe.weight_decay) == ("dice_ce", "adamw", 0.01)
    assert (recipe.schedule, recipe.warmup, recipe.epochs) == ("poly", 250, 100)
