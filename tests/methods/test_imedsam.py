"""The whole method on small models: what trains, what stays, masks at any size."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.losses import DiceLoss
from segmed.imaging.prompts import SlicePrompt
from segmed.methods.gated_lora import GatedLora
from segmed.methods.imedsam import Imedsam, ImedsamConfig
from segmed.methods.trainable import config_from, load_trained, read_facts, save_trained
from segmed.sam.precision import prepare_encoder
from tiny_sam import tiny_sam
from torch import Tensor, nn
from transformers import SamConfig, SamModel

SIZE = 64
STEPS = 40


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
    method.prepare_training()
    method.train()
    groups = [
        {"params": [p], "lr": method.recipe.rate(name)} for name, p in method.named_parameters() if p.requires_grad
    ]
    optimiser = torch.optim.AdamW(groups, weight_decay=method.recipe.weight_decay)
    torch.manual_seed(0)
    losses = []
    for step in range(steps):
        loss = method.loss(*discs(4, step), progress=step / steps)
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
def test_the_same_prompt_gives_the_same_mask(trained: tuple[Imedsam, list[float], dict[str, Tensor]]) -> None:
    method = trained[0]
    images, prompts, _ = discs(2, 101)
    embedding = method.encode(images)
    first = method.decode(embedding, prompts, (50, 70)).masks
    torch.manual_seed(99)
    assert torch.equal(first, method.decode(embedding, prompts, (50, 70)).masks)
    alone = method.decode(embedding.split()[1], prompts[1:], (50, 70)).masks
    assert torch.allclose(first[1:], alone, atol=1e-4)


@pytest.mark.parametrize("shape", [(45, 77), (128, 31), (1, 9)])
@torch.inference_mode()
def test_slices_of_any_shape(trained: tuple[Imedsam, list[float], dict[str, Tensor]], shape: tuple[int, int]) -> None:
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
    """Scale and B start at zero and pass on no gradient, so one step comes first; boxes alone use few embeddings."""
    method = fresh(ImedsamConfig(gate=True))
    train(method, 1)
    method.train()
    images, _, truth = discs(1, 3)
    method.loss(images, [mixed_prompts()], truth.expand(-1, 4, -1, -1), 0.5).backward()
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
    maps = method._refine(method.encode(images), prompts, (SIZE, SIZE))

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
        load_trained(fresh(size=128), tmp_path, "b")


@pytest.mark.parametrize("first", ["encoder", "method"])
@torch.inference_mode()
def test_bf16_encoder(trained: tuple[Imedsam, list[float], dict[str, Tensor]], tmp_path: Path, first: str) -> None:
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
        loss = method.loss(*discs(2, 0))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.grad is not None)


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
        ("share", 0),
        ("share", 1.01),
        ("classes", 0),
    ],
)
def test_wrong_settings(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"{name} is .*; allowed .*\. \w+"):
        ImedsamConfig(**{name: value})


def test_reference_settings() -> None:
    config = ImedsamConfig(reference=True)
    assert (config.gate, config.scale, config.nodes) == (True, 0.5, None)
