"""LoRA-SAM: what its parameters count, where they sit, that they merge, and that peft can switch them."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from segmed.methods.base.trainable import load_trained, save_trained
from segmed.methods.lora import LoraSam, LoraSamConfig, SplitQkv
from segmed.methods.sam.class_head import ClassSegmenter, learning_rate, with_classes
from segmed.sam.cpu.attention import FastVisionAttention
from segmed.sam.cpu.precision import prepare_encoder
from segmed.sam.stem import build_sam
from tiny_sam import tiny_sam
from torch import Tensor, nn
from transformers import SamConfig, SamModel

LABELS = ("disc", "block")


@pytest.fixture(scope="module")
def base() -> SamModel:
    return tiny_sam(0, 128)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))


def trained(base: SamModel, images: Tensor, rank: int = 4, steps: int = 4) -> LoraSam:
    """After a few steps on left and right halves."""
    torch.manual_seed(0)
    ours = LoraSam(base, LoraSamConfig(LABELS, rank))
    truth = torch.zeros(2, 1, 50, 70)
    truth[..., :20], truth[..., 50:] = 1, 2
    optimiser = torch.optim.AdamW([p for p in ours.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(steps):
        optimiser.zero_grad()
        ours.loss(images, None, truth).backward()
        optimiser.step()
    return ours.eval()


@torch.inference_mode()
def logits(segmenter: ClassSegmenter, images: Tensor) -> Tensor:
    return segmenter.decode(segmenter.encode(images), None, (50, 70)).masks


@pytest.mark.parametrize(
    ("rank", "total", "trainable"), [(1, "95.322", "2.360"), (4, "95.450", "2.488"), (8, "95.621", "2.659")]
)
def test_vit_b_has_the_published_number_of_parameters(rank: int, total: str, trainable: str) -> None:
    with torch.device("meta"):
        vit = build_sam(SamConfig())
    ours = LoraSam(vit, LoraSamConfig(rank=rank))
    sizes = {name: p.numel() for name, p in ours.named_parameters()}
    lora = {name: n for name, n in sizes.items() if ".lora_" in name}
    assert sum(sizes.values()) == 95_279_259 + 42_752 * rank
    assert f"{sum(sizes.values()) / 1e6:.3f}" == total
    assert sum(n for name, n in lora.items() if "vision_encoder" in name) == 36_864 * rank
    assert sum(n for name, n in lora.items() if "mask_decoder" in name) == 5_888 * rank
    assert len(lora) == 2 * (24 + 14)
    assert (
        sum(n for name, n in sizes.items() if "mask_decoder" in name and ".transformer." not in name)
        == 2_310_607
    )
    learned = sum(p.numel() for p in ours.parameters() if p.requires_grad)
    assert learned == 42_752 * rank + 2_310_607 + 6_476 - 256  # the positional matrix never trains
    assert f"{learned / 1e6:.3f}" == trainable
    assert {name for name, p in ours.named_parameters() if p.requires_grad} == set(ours.trained_names())


@torch.no_grad()
def test_split_rows_give_what_the_fused_layer_gives() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, 5, 24)
    for bias in (True, False):
        fused = nn.Linear(24, 72, bias)
        split = SplitQkv(fused)
        assert torch.allclose(split(x), fused(x), atol=1e-6)
        assert torch.equal(split.fuse().weight, fused.weight)
        assert split.k.weight.data_ptr() == fused.weight[24:].data_ptr()


def test_keys_and_everything_but_q_and_v_stay(base: SamModel, images: Tensor) -> None:
    before = base.state_dict()
    after = trained(base, images).merged().model.state_dict()
    for name in (n for n in before if n.endswith("attn.qkv.weight")):
        old, new = before[name].chunk(3), after[name].chunk(3)
        assert torch.equal(new[1], old[1])
        assert not torch.equal(new[0], old[0])
        assert not torch.equal(new[2], old[2])
    changed = {
        n
        for n in before
        if "vision_encoder" in n or ".transformer." in n
        if not torch.equal(before[n], after[n])
    }
    assert all(n.endswith(("attn.qkv.weight", "q_proj.weight", "v_proj.weight")) for n in changed)
    assert len(changed) == 4 + 14
    for name in ("shared_image_embedding", "prompt_encoder.shared_embedding"):
        assert torch.equal(after[f"{name}.positional_embedding"], before[f"{name}.positional_embedding"])


@pytest.mark.parametrize("rank", [1, 2, 8])
@torch.no_grad()
def test_the_change_is_the_product_at_scale_one(base: SamModel, rank: int) -> None:
    ours = LoraSam(base, LoraSamConfig(LABELS, rank))
    v = ours.model.vision_encoder.layers[1].attn.qkv.v
    v.lora_B["default"].weight.normal_()
    rows = ours.merged().model.vision_encoder.layers[1].attn.qkv.weight[256:]
    product = v.lora_B["default"].weight @ v.lora_A["default"].weight
    assert torch.allclose(rows - base.vision_encoder.layers[1].attn.qkv.weight[256:], product, atol=1e-5)


def test_merged_weights_give_the_same_logits_in_plain_modules(base: SamModel, images: Tensor) -> None:
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    ours = trained(base, images)
    expected = logits(ours, images)
    merged = ours.merged()
    plain = with_classes(base, 3)
    assert (logits(merged, images) - expected).abs().max() < 1e-5 * expected.abs().max()
    assert (expected - logits(LoraSam(base, ours.config), images)).abs().max() > 0.1
    # the same modules as plain SAM, so the same cost
    assert [(n, type(m)) for n, m in merged.model.named_modules()] == [
        (n, type(m)) for n, m in plain.named_modules()
    ]
    assert {n: p.shape for n, p in merged.model.named_parameters()} == {
        n: p.shape for n, p in plain.named_parameters()
    }
    assert torch.equal(logits(ours, images), expected)
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.state_dict().items())
    # what trains on does not change what is served
    with torch.no_grad():
        for name in ours.trained_names():
            ours.get_parameter(name).add_(1)
    assert (logits(merged, images) - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_merged_weights_run_on_the_fast_encoder(base: SamModel, images: Tensor, precision: str) -> None:
    merged = trained(base, images).merged()
    expected = logits(merged, images)
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    merged.model.vision_encoder = prepare_encoder(merged.model.vision_encoder, "cpu", precision)
    attention = merged.model.vision_encoder.layers[0].attn
    assert type(attention) is FastVisionAttention
    assert type(attention.qkv) is nn.Linear
    assert (logits(merged, images) - expected).abs().max() < (
        1e-4 if precision == "fp32" else 0.2
    ) * expected.std()
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.state_dict().items())


def test_merging_into_a_prepared_encoder(base: SamModel, images: Tensor) -> None:
    prepared = copy.deepcopy(base)
    prepared.vision_encoder = prepare_encoder(prepared.vision_encoder, "cpu", "fp32")
    ours = trained(base, images)
    other = LoraSam(prepared, ours.config).eval()
    other.load_state_dict({name: ours.state_dict()[name] for name in ours.trained_names()}, strict=False)
    assert torch.allclose(logits(other.merged(), images), logits(ours, images), atol=1e-4)


@torch.inference_mode()
def test_peft_switches_and_keeps_the_change(base: SamModel, images: Tensor) -> None:
    with torch.inference_mode(False), torch.enable_grad():
        ours = trained(base, images)
    changed = ours.encode(images).features
    plain = base.vision_encoder(images).last_hidden_state
    assert (changed - plain).abs().max() > 1e-3
    ours.model.disable_adapters()
    assert torch.equal(ours.encode(images).features, plain)
    ours.model.enable_adapters()
    assert torch.equal(ours.encode(images).features, changed)
    state = get_peft_model_state_dict(ours.model)
    assert len(state) == sum(".lora_" in name for name in ours.trained_names())
    other = LoraSam(base, ours.config).eval()
    assert not set_peft_model_state_dict(other.model, state).unexpected_keys
    assert torch.equal(other.encode(images).features, changed)


def test_weights_of_another_rank_are_refused(base: SamModel, tmp_path: Path) -> None:
    save_trained(LoraSam(base, LoraSamConfig(LABELS, 2)), tmp_path, "base")
    with pytest.raises(ValueError, match=r"lora_A.* \(2, 64\) for \(4, 64\).*Use the rank"):
        load_trained(LoraSam(base, LoraSamConfig(LABELS, 4)), tmp_path, "base")


@pytest.mark.parametrize("rank", [0, -4, 2.5, True, "4"])
def test_useless_ranks_are_refused(rank: object) -> None:
    with pytest.raises(ValueError, match=r"rank is .*; allowed are whole numbers from 1\. Take 1, 4 or 8"):
        LoraSamConfig(rank=rank)  # type: ignore[arg-type]


def test_a_rank_above_the_width_is_refused(base: SamModel) -> None:
    with pytest.raises(ValueError, match=r"rank is 33; allowed are 1 to 32, the width"):
        LoraSam(base, LoraSamConfig(LABELS, 33))
    LoraSam(base, LoraSamConfig(LABELS, 32))


def test_the_recipe_is_that_of_the_authors(base: SamModel) -> None:
    recipe = LoraSam(base).recipe
    assert (recipe.loss, recipe.optimiser, recipe.weight_decay) == ("dice_ce", "adamw", 0.1)
    assert (recipe.schedule, recipe.warmup, recipe.rate("any")) == ("poly", 250, 5e-4)
    rates = [learning_rate(batch) for batch in (1, 2, 7, 12, 24)]
    assert rates == pytest.approx([5e-4, 5e-4, 2.75e-3, 5e-3, 5e-3])
    with pytest.raises(ValueError, match=r"batch is 0; allowed are whole numbers from 1"):
        learning_rate(0)
