"""IMedSAM before training: what trains, what is shared with SAM, losses, classes and settings."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from segmed.methods.imedsam.gated_lora import GatedLora
from segmed.methods.imedsam.imedsam import Imedsam, ImedsamConfig
from segmed.monai_parts import DiceLoss
from segmed.sam.tiny import initialised
from segmed.sam.tiny import tiny_config as stem_config
from small_imedsam import SIZE, discs, fresh, mixed_prompts, train
from tiny_sam import tiny_sam
from torch import Tensor, nn
from transformers import SamConfig, SamModel


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (ImedsamConfig(reference=True), 1_595_742),
        # without gates 9,216, with a scale per layer 12, without 21 values of position 21 · (1024 + 256)
        (ImedsamConfig(), 1_595_742 - 9_216 + 12 - 26_880),
    ],
)
def test_parameters_that_train_on_vit_b(config: ImedsamConfig, count: int) -> None:
    with torch.device("meta"):
        method = Imedsam(SamModel(SamConfig()), config)
        own = dict(method.named_parameters())
    assert sum(own[name].numel() for name in method.trained_names()) == count
    assert sorted(n for n, p in own.items() if p.requires_grad) == sorted(method.trained_names())


@torch.inference_mode()
def test_the_encoder_starts_as_sams() -> None:
    base = tiny_sam(0, SIZE)
    stem = initialised(
        stem_config(32, hidden=32, layers=2, heads=2, width=32, stem_channels=(8, 16), stem_depths=(0, 1)), 3
    ).eval()
    for model, size in ((base, SIZE), (stem, 32)):
        pixels = torch.rand(2, 3, size, size)
        assert torch.equal(
            Imedsam(model).encode(pixels).features, model.vision_encoder(pixels).last_hidden_state
        )
    pixels = torch.rand(1, 3, SIZE, SIZE)
    moved = Imedsam(base, ImedsamConfig(scale=0.5)).encode(pixels).features
    assert (moved - base.vision_encoder(pixels).last_hidden_state).abs().max() > 1e-3


def test_the_base_model_is_left_alone() -> None:
    base = tiny_sam(0, SIZE)
    base.requires_grad_(True)
    before = copy.deepcopy(base.state_dict())
    modules = dict(base.named_modules())
    train(Imedsam(base), 2)
    assert all(p.requires_grad for p in base.parameters())
    assert all(torch.equal(v, before[k]) for k, v in base.state_dict().items())
    assert dict(base.named_modules()) == modules
    assert not any(m._forward_hooks for m in base.mask_decoder.modules())


def test_frozen_weights_are_shared() -> None:
    base = tiny_sam(0, SIZE)
    method = Imedsam(base)
    ours, theirs = method.model.vision_encoder, base.vision_encoder
    assert ours.layers[0].attn.qkv.base.weight.data_ptr() == theirs.layers[0].attn.qkv.weight.data_ptr()
    assert ours.neck.conv1.weight.data_ptr() == theirs.neck.conv1.weight.data_ptr()
    tuned = method.model.mask_decoder.upscale_conv1.weight
    assert tuned.data_ptr() != base.mask_decoder.upscale_conv1.weight.data_ptr()


@pytest.mark.parametrize("gate", [False, True])
def test_lora_changes_queries_and_values_only(gate: bool) -> None:
    torch.manual_seed(0)
    frozen = nn.Linear(12, 36)
    lora = GatedLora(frozen, 3, gate)
    tokens = torch.randn(2, 4, 5, 12)
    assert torch.equal(lora(tokens), frozen(tokens))
    nn.init.normal_(lora.q_up.weight)
    nn.init.normal_(lora.v_up.weight)
    q, k, v = (lora(tokens) - frozen(tokens)).chunk(3, -1)
    factor = tokens.mean((1, 2)) @ lora.gate.weight[0] if lora.gate is not None else torch.ones(2)
    assert not k.any()
    for update, down, up in ((q, lora.q_down, lora.q_up), (v, lora.v_down, lora.v_up)):
        wanted = tokens @ down.weight.T @ up.weight.T * factor[:, None, None, None]
        assert torch.allclose(update, wanted, atol=1e-5)


def test_every_trained_parameter_gets_a_gradient() -> None:
    """Scale and B start at zero and pass on no gradient, so one step comes first; boxes alone use few
    embeddings."""
    method = fresh(ImedsamConfig(gate=True))
    train(method, 1)
    method.train()
    images, _, truth = discs(1, 3)
    method.loss(images, [mixed_prompts()], F.avg_pool2d(truth, 4).expand(-1, 4, -1, -1), 0.5).backward()
    own = dict(method.named_parameters())
    for name in method.trained_names():
        gradient = own[name].grad
        assert gradient is not None, name
        # batch norm takes away any constant before it, so that only rounding is left of the bias there
        assert gradient.abs().max() > 0, name


@pytest.mark.parametrize(("reference", "entropy"), [(False, 0.5), (True, 0.2)])
def test_the_loss_moves_from_coarse_to_fine(reference: bool, entropy: float) -> None:
    method = fresh(ImedsamConfig(reference=reference))
    images, prompts, truth = discs(2, 0)
    truth = F.avg_pool2d(truth, 8)
    maps = method._refine(method.encode(images), prompts, (SIZE // 8, SIZE // 8))

    def part(logits: Tensor) -> Tensor:
        cross = F.binary_cross_entropy_with_logits(logits, truth)
        return entropy * cross + (1 - entropy) * DiceLoss(sigmoid=True, squared_pred=True)(logits, truth)

    # 100 epochs: a = min((epoch + 1) / 5, 0.9)
    for progress, share in ((0.0, 0.2), (0.02, 0.6), (0.04, 0.9), (1.0, 0.9)):
        wanted = (1 - share) * part(maps.coarse) + share * part(maps.fine)
        assert torch.allclose(method.loss(images, prompts, truth, progress), wanted, atol=1e-6)


def test_autocast_training_step() -> None:
    method = fresh()
    method.train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = method.loss(*discs(2, 0), progress=0.5)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.grad is not None)


@torch.inference_mode()
def test_classes_have_a_prompt_each() -> None:
    method = fresh(ImedsamConfig(classes=2))
    images, prompts, _ = discs(2, 0)
    embedding = method.encode(images)
    both = [[*p, *mixed_prompts()[:1]] for p in prompts]
    wanted = method.decode(embedding, both, (30, 30)).masks
    assert wanted.shape == (2, 2, 30, 30)
    # the classes change places: heads and prompts alike, and nothing but these belongs to a class
    for heads in (method.decoder.coarse_heads, method.decoder.fine_heads):
        heads[0], heads[1] = heads[1], heads[0]
    swapped = method.decode(embedding, [p[::-1] for p in both], (30, 30)).masks
    assert torch.allclose(swapped.flip(1), wanted, atol=1e-5)
    other_heads = method.decode(embedding, both, (30, 30)).masks
    assert (other_heads - wanted).abs().amax((0, 2, 3)).min() > 0.01
    with pytest.raises(ValueError, match=r"\[1\] prompts do not fit 2 slices; .* 2 prompts, one per class"):
        method.decode(embedding, prompts, (30, 30))


def test_a_class_that_is_not_there() -> None:
    method = fresh(ImedsamConfig(classes=2)).train()
    images, prompts, truth = discs(2, 0)
    small = F.avg_pool2d(truth, 4)
    loss = method.loss(images, [p * 2 for p in prompts], torch.cat([small, torch.zeros_like(small)], 1), 0.5)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.grad is not None)
    last = method.decoder.coarse_heads[1].bias.grad
    assert last is not None
    assert last[0] > 0  # the logit of the absent class goes down


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rank", 0),
        ("rank", True),
        ("bottleneck", 0),
        ("variant", "power"),
        ("scale", float("nan")),
        ("scale", "0"),
        ("nodes", 3),
        ("nodes", True),
        ("passes_train", 1),
        ("passes_test", 1.5),
        ("share", -0.1),
        ("share", 1.01),
        ("margin", -0.1),
        ("margin", float("inf")),
        ("implicit", 1),
        ("classes", 0),
        ("gate", 1),
        ("reference", None),
    ],
)
def test_wrong_settings(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"{name} is .*; allowed .*\. \w+"):
        ImedsamConfig(**{name: value})


def test_reference_settings() -> None:
    config = ImedsamConfig(reference=True)
    assert (config.gate, config.scale, config.nodes, config.margin) == (True, 0.5, None, None)
    assert ImedsamConfig(**vars(config)) == config  # as its weights keep it
    with pytest.raises(ValueError, match=r"nodes is 4, but reference=true sets it to None\. Leave out"):
        ImedsamConfig(reference=True, nodes=4)
