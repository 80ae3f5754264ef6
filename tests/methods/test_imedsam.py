"""The whole method on small models: what trains, what stays, masks at any size."""

from __future__ import annotations

import copy
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from segmed.imaging.prompts import SlicePrompt
from segmed.methods.base.trainable import config_from, load_trained, read_facts, save_trained
from segmed.methods.imedsam.gated_lora import GatedLora
from segmed.methods.imedsam.imedsam import Imedsam, ImedsamConfig
from segmed.monai_parts import DiceLoss
from segmed.sam.cpu.precision import prepare_encoder
from segmed.sam.tiny import initialised
from segmed.sam.tiny import tiny_config as stem_config
from tiny_sam import tiny_sam
from torch import Tensor, nn
from transformers import SamConfig, SamModel

SIZE = 128  # 8 tokens per side
STEPS = 30


def discs(count: int, seed: int, size: int = SIZE) -> tuple[Tensor, list[list[SlicePrompt]], Tensor]:
    """Noisy bright discs with tight boxes: images (B, 3, S, S), prompts, masks (B, 1, S, S)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    pictures, prompts, masks = [], [], []
    for _ in range(count):
        r = rng.uniform(0.15, 0.3) * size
        cx, cy = rng.uniform(r + 1, size - r - 1, 2)
        mask = (x - cx) ** 2 + (y - cy) ** 2 < r * r
        pictures.append(np.where(mask, 0.8, 0.2) + rng.normal(0, 0.03, mask.shape))
        prompts.append([SlicePrompt(box=(cx - r, cy - r, cx + r, cy + r))])
        masks.append(mask)
    images = torch.from_numpy(np.stack(pictures)).float()[:, None].expand(-1, 3, -1, -1)
    return images, prompts, torch.from_numpy(np.stack(masks)).float()[:, None]


def train(method: Imedsam, steps: int) -> list[float]:
    """By the recipe, but for faster rates behind the decoder's transformer.

    Random upscaling keeps next to nothing of the picture, and at the recipe's rate, which is for that of a
    trained SAM, it would not come to within so few steps.
    """
    recipe = replace(
        method.recipe, rates={**method.recipe.rates, "decoder.": 3e-3, "model.mask_decoder.": 3e-3}
    )
    method.prepare_training()
    method.train()
    groups: dict[float, list[nn.Parameter]] = defaultdict(list)
    for name, parameter in method.named_parameters():
        if parameter.requires_grad:
            groups[recipe.rate(name)].append(parameter)
    optimiser = torch.optim.AdamW(
        [{"params": p, "lr": r} for r, p in groups.items()], weight_decay=recipe.weight_decay
    )
    torch.manual_seed(0)
    losses = []
    for step in range(steps):
        images, prompts, truth = discs(4, step)
        loss = method.loss(images, prompts, F.avg_pool2d(truth, 2), progress=step / steps)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    method.eval()
    return losses


def fresh(config: ImedsamConfig | None = None, seed: int = 0, size: int = SIZE) -> Imedsam:
    base = tiny_sam(seed, size)
    torch.manual_seed(seed)
    return Imedsam(base, config).eval()


def dice(one: Tensor, other: Tensor) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


@pytest.fixture(scope="module")
def trained() -> tuple[Imedsam, list[float], dict[str, Tensor]]:
    """The method after training, its losses, and its state before."""
    method = fresh()
    before = {k: v.clone() for k, v in method.state_dict().items()}
    return method, train(method, STEPS), before


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


def test_training_lowers_the_loss(trained: tuple[Imedsam, list[float], dict[str, Tensor]]) -> None:
    _, losses, _ = trained
    assert np.mean(losses[-5:]) < 0.35 * losses[0]


@torch.inference_mode()
def test_what_training_changes(trained: tuple[Imedsam, list[float], dict[str, Tensor]]) -> None:
    method, _, before = trained
    changed = {k for k, v in method.state_dict().items() if not torch.equal(v, before[k])}
    assert changed <= {*method.trained_names(), *method.extra_buffers()}
    assert not any("positional_embedding" in name for name in changed)
    assert set(method.extra_buffers()) <= changed
    for layer in method.model.vision_encoder.layers:
        tokens = torch.randn(1, 2, 2, 128)
        q, k, v = (layer.attn.qkv(tokens) - layer.attn.qkv.base(tokens)).chunk(3, -1)
        assert not k.any()
        assert q.abs().max() > 0
        assert v.abs().max() > 0


@torch.inference_mode()
def test_one_model_and_embedding_at_three_resolutions(
    trained: tuple[Imedsam, list[float], dict[str, Tensor]],
) -> None:
    method = trained[0]
    images, prompts, truth = discs(1, 100)
    embedding = method.encode(images)
    found = {}
    for side in (128, 384, 896):
        logits, uncertainty = method.decode_with_uncertainty(embedding, prompts, (side, side))
        assert logits.masks.shape == uncertainty.shape == (1, 1, side, side)
        assert logits.quality is None
        assert dice(logits.masks > 0, F.interpolate(truth, (side, side)) > 0.5) > 0.85
        assert 0 < float(uncertainty.min()) <= float(uncertainty.max()) <= 0.25
        found[side] = logits.masks > 0
    # pixels with the same centre
    assert dice(found[128], found[384][..., 1::3, 1::3]) > 0.95
    assert dice(found[128], found[896][..., 3::7, 3::7]) > 0.95


@torch.inference_mode()
def test_uncertainty_lies_on_the_edge(trained: tuple[Imedsam, list[float], dict[str, Tensor]]) -> None:
    method = trained[0]
    images, prompts, truth = discs(4, 100)
    _, uncertainty = method.decode_with_uncertainty(method.encode(images), prompts, (SIZE, SIZE))
    near = F.max_pool2d(truth, 13, 1, 6) - truth + F.max_pool2d(1 - truth, 13, 1, 6) - (1 - truth) > 0
    assert uncertainty[near].mean() > 3 * uncertainty[~near].mean()


@torch.inference_mode()
def test_refined_pixels_are_better(trained: tuple[Imedsam, list[float], dict[str, Tensor]]) -> None:
    method = trained[0]
    images, prompts, truth = discs(4, 100)
    maps = method._refine(method.encode(images), prompts, (SIZE, SIZE))
    refined = maps.fine != maps.coarse
    counts = refined.flatten(1).sum(1).tolist()
    for n, ((prompt,), count) in enumerate(zip(prompts, counts, strict=True)):
        left, top, right, bottom = prompt.box
        x, y = 0.25 * (right - left), 0.25 * (bottom - top)
        rows, columns = (
            (max(0, int(a // 1)), min(SIZE, -int(-b // 1)))
            for a, b in ((top - y, bottom + y), (left - x, right + x))
        )
        area = (rows[1] - rows[0]) * (columns[1] - columns[0])
        assert count == round(area / 8)
        assert refined[n, 0, slice(*rows), slice(*columns)].sum() == count
    coarse, fine = (((m > 0) != (truth > 0.5))[refined].float().mean() for m in (maps.coarse, maps.fine))
    assert fine < 0.9 * coarse


@torch.inference_mode()
def test_the_same_prompt_gives_the_same_mask(trained: tuple[Imedsam, list[float], dict[str, Tensor]]) -> None:
    method = trained[0]
    images, prompts, _ = discs(2, 101)
    embedding = method.encode(images)
    logits, uncertainty = method.decode_with_uncertainty(embedding, prompts, (50, 70))
    first = logits.masks
    torch.manual_seed(99)
    assert torch.equal(first, method.decode(embedding, prompts, (50, 70)).masks)
    assert torch.equal(uncertainty, method.decode_with_uncertainty(embedding, prompts, (50, 70))[1])
    alone = method.decode(embedding.split()[1], prompts[1:], (50, 70)).masks
    assert torch.allclose(first[1:], alone, atol=1e-4)


@pytest.mark.parametrize("shape", [(45, 77), (128, 31), (1, 9)])
@torch.inference_mode()
def test_slices_of_any_shape(
    trained: tuple[Imedsam, list[float], dict[str, Tensor]], shape: tuple[int, int]
) -> None:
    method, (height, width) = trained[0], shape
    picture = np.full(shape, 50, np.uint8)
    y, x = np.mgrid[:height, :width]
    mask = ((x - width / 2) / (width / 4)) ** 2 + ((y - height / 2) / max(height / 4, 1)) ** 2 < 1
    picture[mask] = 200
    box = SlicePrompt(box=(width / 4, height / 4, 3 * width / 4, 3 * height / 4))
    masks = method.decode(method.embed([picture]), [[box]], shape).masks
    assert masks.shape == (1, 1, *shape)
    assert torch.isfinite(masks).all()
    if min(shape) > 9:
        assert dice(masks[0, 0] > 0, torch.from_numpy(mask)) > 0.75


@torch.inference_mode()
def test_slices_of_one_value(trained: tuple[Imedsam, list[float], dict[str, Tensor]]) -> None:
    method = trained[0]
    for value in (0, 7, 255):
        embedding = method.embed([np.full((20, 30), value, np.uint8)])
        logits, uncertainty = method.decode_with_uncertainty(embedding, discs(1, 0)[1], (20, 30))
        assert torch.isfinite(logits.masks).all()
        assert torch.isfinite(uncertainty).all()


def mixed_prompts() -> list[SlicePrompt]:
    """Box, box and clicks, a lone click, mask: every kind that the prompt encoder knows."""
    mask = np.zeros((SIZE, SIZE), bool)
    mask[20:40, 20:40] = True
    clicks = np.array([[30, 30], [5, 5]], np.float32)
    return [
        SlicePrompt(box=(10, 12, 40, 44)),
        SlicePrompt(box=(10, 12, 40, 44), points=clicks, labels=np.array([1, 0])),
        SlicePrompt(points=clicks[:1], labels=np.array([1])),
        SlicePrompt(mask=mask),
    ]


@torch.inference_mode()
def test_prompts_of_all_kinds_in_any_order(trained: tuple[Imedsam, list[float], dict[str, Tensor]]) -> None:
    method = trained[0]
    images, _, _ = discs(2, 5)
    embedding = method.encode(images)
    row = mixed_prompts()
    together = method.decode(embedding, [row, row[::-1]], (40, 40)).masks
    for b, part in enumerate(embedding.split()):
        for k, prompt in enumerate(row if b == 0 else row[::-1]):
            alone = method.decode(part, [[prompt]], (40, 40)).masks[0, 0]
            assert torch.allclose(together[b, k], alone, atol=1e-4)
    assert (together[0, 0] - together[0, 1]).abs().max() > 1e-3


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


@torch.inference_mode()
def test_saved_and_loaded(trained: tuple[Imedsam, list[float], dict[str, Tensor]], tmp_path: Path) -> None:
    method = trained[0]
    images, prompts, _ = discs(2, 7)
    wanted = method.decode(method.encode(images), prompts, (80, 60)).masks
    save_trained(method, tmp_path, "b")
    loaded = fresh(config_from(ImedsamConfig, read_facts(tmp_path)["config"]))
    before = loaded.decode(loaded.encode(images), prompts, (80, 60)).masks
    load_trained(loaded, tmp_path, "b")
    again = loaded.decode(loaded.encode(images), prompts, (80, 60)).masks
    assert (before - wanted).abs().max() > 0.1
    assert (again - wanted).abs().max() < 1e-6
    with pytest.raises(ValueError, match="do not fit imedsam"):
        load_trained(fresh(ImedsamConfig(rank=2)), tmp_path, "b")
    with pytest.raises(ValueError, match="do not fit imedsam"):
        load_trained(fresh(ImedsamConfig(classes=3)), tmp_path, "b")
    with pytest.raises(ValueError, match="image size"):
        load_trained(fresh(size=64), tmp_path, "b")


@pytest.mark.parametrize("first", ["encoder", "method"])
@torch.inference_mode()
def test_bf16_encoder(
    trained: tuple[Imedsam, list[float], dict[str, Tensor]], tmp_path: Path, first: str
) -> None:
    """Prepared before the method is built, as served, or after."""
    method = trained[0]
    images, prompts, _ = discs(8, 9)
    exact = method.decode(method.encode(images), prompts, (SIZE, SIZE)).masks > 0
    save_trained(method, tmp_path, "b")
    base = tiny_sam(0, SIZE)
    if first == "encoder":
        base.vision_encoder = prepare_encoder(base.vision_encoder, "cpu", "bf16")
    served = Imedsam(base).eval()
    load_trained(served, tmp_path, "b")
    if first == "method":
        served.model.vision_encoder = prepare_encoder(served.model.vision_encoder, "cpu", "bf16")
    embedding = served.encode(images)
    assert embedding.features.dtype == torch.float32
    masks, uncertainty = served.decode_with_uncertainty(embedding, prompts, (SIZE, SIZE))
    assert masks.masks.dtype == uncertainty.dtype == torch.float32
    assert dice(masks.masks > 0, exact) >= 0.99


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


@torch.inference_mode()
def test_prompts_that_do_not_fit(trained: tuple[Imedsam, list[float], dict[str, Tensor]]) -> None:
    method = trained[0]
    images, prompts, _ = discs(2, 0)
    embedding = method.encode(images)
    with pytest.raises(ValueError, match="needs a prompt"):
        method.decode(embedding, None, (8, 8))
    with pytest.raises(ValueError, match="1 lists of"):
        method.decode(embedding, prompts[:1], (8, 8))
    with pytest.raises(ValueError, match=r"\[1, 2\] prompts"):
        method.decode(embedding, [prompts[0], prompts[1] * 2], (8, 8))


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
