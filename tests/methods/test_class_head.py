"""What LoRA-SAM and SAM-Adapter share: class tokens beside SAM's own, what trains, what is kept, how it is
served."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from segmed.imaging.prompts import SlicePrompt
from segmed.methods.adapter.adapter import AdapterSam, AdapterSamConfig
from segmed.methods.base.trainable import config_from, load_trained, read_facts, save_trained
from segmed.methods.lora import LoraSam, LoraSamConfig
from segmed.methods.sam.class_head import ClassConfig, TrainableClassSegmenter, head_names, with_classes
from segmed.methods.sam.medsam import MedSam
from segmed.methods.sam.sharing import share_weights
from segmed.sam.cpu.precision import prepare_encoder
from segmed.sam.stem import build_sam
from segmed.sam.tiny import tiny_config
from segmed.sam.weights import load_sam
from tiny_sam import save_folder, tiny_sam
from torch import Tensor
from transformers import SamModel

LABELS = ("disc", "block")
METHODS = [(LoraSam, LoraSamConfig), (AdapterSam, AdapterSamConfig)]
both = pytest.mark.parametrize(("method", "config"), METHODS, ids=["lora", "adapter"])


def conv_stem_sam() -> SamModel:
    """64 px, no windows, no relative positions, 64 channels; every weight is random."""
    sizes = {
        "hidden": 64,
        "layers": 2,
        "heads": 2,
        "width": 64,
        "stem_channels": (16, 32, 64),
        "stem_depths": (0, 0, 1),
    }
    torch.manual_seed(0)
    model = build_sam(tiny_config(64, **sizes))  # type: ignore[arg-type]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 1 if "positional" in name else parameter[0].numel() ** -0.5)
    return model.eval()


BACKBONES = {"windows": lambda: tiny_sam(0, 128), "stem": conv_stem_sam}


def example(side: int, batch: int = 2) -> tuple[Tensor, Tensor]:
    """Images (B, 3, side, side) of a bright disc and a dark block, and their classes (B, 1, side, side)."""
    y, x = torch.meshgrid(torch.linspace(0, 1, side), torch.linspace(0, 1, side), indexing="ij")
    images, truth = torch.full((batch, 3, side, side), 0.3), torch.zeros(batch, 1, side, side)
    for b in range(batch):
        disc = (x - 0.3 - 0.06 * b) ** 2 + (y - 0.35) ** 2 < 0.19**2
        block = ((x - 0.7).abs() < 0.17) & ((y - 0.66 - 0.03 * b).abs() < 0.14)
        images[b, :, disc], images[b, :, block] = 0.9, 0.05
        truth[b, 0, disc], truth[b, 0, block] = 1.0, 2.0
    return images, truth


def train(
    segmenter: TrainableClassSegmenter,
    steps: int,
    prompts: list[list[SlicePrompt]] | None = None,
    rate: float = 3e-3,
) -> list[float]:
    """Losses of a few steps on the example; with prompts the disc is what they ask for."""
    images, truth = example(int(segmenter.input_size or 0))
    truth = truth if prompts is None else (truth == 1).float()
    optimiser = torch.optim.AdamW([p for p in segmenter.parameters() if p.requires_grad], lr=rate)
    losses = []
    for _ in range(steps):
        optimiser.zero_grad()
        loss = segmenter.loss(images, prompts, truth)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def snapshot(model: SamModel) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def class_dice(one: Tensor, two: Tensor, classes: int) -> list[float]:
    """Dice of each class of two class maps."""
    masks = [(one == c, two == c) for c in range(classes)]
    return [float(2 * (a & b).sum() / (a.sum() + b.sum())) for a, b in masks]


@pytest.fixture(scope="module")
def base() -> SamModel:
    return tiny_sam(0, 128)


def test_the_head_keeps_what_is_of_sam(base: SamModel) -> None:
    model = with_classes(base, 6)
    old, new = base.state_dict(), model.state_dict()
    changed = {name for name in new if name not in old or not torch.equal(new[name], old[name])}
    assert model.config.mask_decoder_config.num_multimask_outputs == 6
    assert base.config.mask_decoder_config.num_multimask_outputs == 3
    drawn = {n for n in new if "hypernetworks_mlps." in n and "mlps.0." not in n}
    resized = {f"mask_decoder.{n}" for n in ("mask_tokens.weight", "iou_prediction_head.proj_out.weight")}
    assert changed == drawn | resized | {"mask_decoder.iou_prediction_head.proj_out.bias"}
    assert len(drawn) == 6 * 6
    for name in (
        "mask_tokens.weight",
        "iou_prediction_head.proj_out.weight",
        "iou_prediction_head.proj_out.bias",
    ):
        old_rows, new_rows = old[f"mask_decoder.{name}"], new[f"mask_decoder.{name}"]
        assert len(new_rows) == 7
        assert torch.equal(new_rows[0], old_rows[0])
        assert not any(torch.equal(n, o) for n, o in zip(new_rows[1:], old_rows[1:], strict=False))


def test_only_what_trains_has_memory_of_its_own(base: SamModel) -> None:
    model = with_classes(base, 3)
    theirs = {p.data_ptr() for p in base.parameters()}
    mine = {name for name, p in model.named_parameters() if p.data_ptr() not in theirs}
    assert mine == set(head_names(model))
    assert not any("positional" in name or "transformer" in name for name in mine)
    assert (
        model.prompt_encoder.shared_embedding.positional_embedding
        is model.shared_image_embedding.positional_embedding
    )


def test_the_positional_matrix_is_frozen_even_where_it_is_not_tied() -> None:
    model = tiny_sam(0, 128)
    model.prompt_encoder.shared_embedding = copy.deepcopy(model.shared_image_embedding)
    assert "prompt_encoder.shared_embedding.positional_embedding" in dict(model.named_parameters())
    assert not any("positional" in name for name in head_names(model))


def test_a_shared_copy_leaves_flags_and_modules_alone(base: SamModel) -> None:
    flags = {name: p.requires_grad for name, p in base.named_parameters()}
    copied = share_weights(base)
    copied.requires_grad_(False)
    copied.vision_encoder.layers[0].mlp = torch.nn.Identity()
    prepare_encoder(copied.vision_encoder, "cpu", "bf16")
    assert {name: p.requires_grad for name, p in base.named_parameters()} == flags
    assert all(p.dtype is torch.float32 for p in base.parameters())
    assert type(base.vision_encoder.layers[0].mlp) is not torch.nn.Identity


@both
@pytest.mark.parametrize("backbone", BACKBONES)
@torch.inference_mode()
def test_a_new_method_is_exactly_sam(method: type, config: type, backbone: str) -> None:
    model = BACKBONES[backbone]()
    torch.manual_seed(5)
    plain = with_classes(model, 3)
    torch.manual_seed(5)
    ours = method(model, config(labels=LABELS)).eval()
    images, _ = example(ours.input_size)
    embedding = ours.encode(images)
    assert torch.equal(embedding.features, model.vision_encoder(images).last_hidden_state)
    expected = plain(image_embeddings=embedding.features, multimask_output=True).pred_masks[:, 0]
    assert torch.equal(ours.decode(embedding, None, expected.shape[-2:]).masks, expected)
    prompts = [[SlicePrompt(box=(10.0, 12.0, 40.0, 50.0))]] * 2
    assert torch.equal(
        ours.decode(embedding, prompts, (70, 90)).masks,
        MedSam(plain).decode(embedding, prompts, (70, 90)).masks,
    )


@both
@pytest.mark.parametrize("backbone", BACKBONES)
def test_training_changes_what_it_says_and_learns(method: type, config: type, backbone: str) -> None:
    model = BACKBONES[backbone]()
    torch.manual_seed(0)
    before_base = snapshot(model)
    ours = method(model, config(labels=LABELS)).train()
    before = {name: p.detach().clone() for name, p in ours.named_parameters()}
    losses = train(ours, 12)
    after = dict(ours.named_parameters())
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert losses[-1] < 0.8 * losses[0]
    unused = ("iou_prediction_head", "mlps.0.", "point_embed", "not_a_point", "mask_embed", "depth")
    assert moved == {
        n for n in ours.trained_names() if not any(word in n for word in unused) or "no_mask_embed" in n
    }
    assert not any("positional" in name for name in moved)
    assert all(torch.equal(value, before_base[name]) for name, value in model.state_dict().items())


@both
def test_every_hook_has_a_gradient_after_one_step(base: SamModel, method: type, config: type) -> None:
    torch.manual_seed(0)
    ours = method(base, config(labels=LABELS))
    train(ours, 1)
    ours.zero_grad()
    images, truth = example(128)
    ours.loss(images, None, truth).backward()
    hooks = set(ours.trained_names()) - {f"model.{name}" for name in head_names(ours.model)}
    silent = [
        name
        for name, p in ours.named_parameters()
        if name in hooks and not (p.grad is not None and p.grad.any())
    ]
    assert hooks
    assert silent == []


@both
def test_prompts_train_token_zero(base: SamModel, method: type, config: type) -> None:
    torch.manual_seed(0)
    ours = method(base, config(labels=LABELS))
    prompts = [[SlicePrompt(box=(14.0, 20.0, 64.0, 70.0))], [SlicePrompt(box=(22.0, 20.0, 72.0, 70.0))]]
    losses = train(ours, 12, prompts)
    hypernetworks = ours.model.mask_decoder.output_hypernetworks_mlps
    assert losses[-1] < 0.8 * losses[0]
    assert hypernetworks[0].proj_out.weight.grad.any()
    assert hypernetworks[1].proj_out.weight.grad is None
    # both at once: each has the gradient of its own loss
    images, truth = example(128)
    ours.zero_grad()
    (ours.loss(images, prompts, (truth == 1).float()) + ours.loss(images, None, truth)).backward()
    assert all(network.proj_out.weight.grad.any() for network in hypernetworks)


def test_the_loss_is_the_published_one(base: SamModel) -> None:
    torch.manual_seed(0)
    ours = LoraSam(base, LoraSamConfig(labels=LABELS))
    images, truth = example(128)
    logits = ours.decode(ours.encode(images), None, (32, 32)).masks
    rows = (torch.arange(32) + 0.5) * 4
    small = truth[:, 0][:, rows.long()][:, :, rows.long()].long()
    truths = F.one_hot(small, 3).permute(0, 3, 1, 2).float()
    share = logits.softmax(1)
    overlap = (share * truths).sum((0, 2, 3))
    dice = 1 - (2 * overlap + 1e-5) / ((share**2).sum((0, 2, 3)) + (truths**2).sum((0, 2, 3)) + 1e-5)
    expected = 0.3 * F.cross_entropy(logits, small) + 0.7 * dice.mean()
    assert ours.loss(images, None, truth).item() == pytest.approx(expected.item(), abs=1e-5)


@both
def test_an_empty_class_gives_a_finite_loss(base: SamModel, method: type, config: type) -> None:
    ours = method(base, config(labels=(*LABELS, "nowhere")))
    images, truth = example(128)
    for labels in (truth, torch.zeros_like(truth)):
        loss = ours.loss(images, None, labels)
        loss.backward()
        assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in ours.parameters() if p.grad is not None)


@both
def test_labels_without_a_class_are_refused(base: SamModel, method: type, config: type) -> None:
    ours = method(base, config(labels=("disc",)))
    images, truth = example(128)
    with pytest.raises(
        ValueError, match=r"values 0 to 2; allowed are .* values 0 to 1 \(background, disc\)\. Name"
    ):
        ours.loss(images, None, truth)
    with pytest.raises(ValueError, match=r"2 channels"):
        ours.loss(images, None, truth.expand(-1, 2, -1, -1) > 1)


def test_another_loss_is_refused_for_classes(base: SamModel) -> None:
    ours = LoraSam(base, LoraSamConfig(labels=LABELS))
    ours.recipe = replace(ours.recipe, loss="focal")
    images, truth = example(128)
    with pytest.raises(ValueError, match=r"'focal', but classes are trained with 'dice_ce' only\. Take that"):
        ours.loss(images, None, truth)


@both
def test_saved_weights_come_back(base: SamModel, tmp_path: Path, method: type, config: type) -> None:
    torch.manual_seed(0)
    ours = method(base, config(labels=LABELS))
    train(ours, 3)
    save_trained(ours, tmp_path, "base")
    torch.manual_seed(1)
    other = method(base, config_from(config, read_facts(tmp_path)["config"]))
    images, _ = example(128)
    with torch.inference_mode():
        expected = ours.decode(ours.encode(images), None, (128, 128)).masks
        assert (other.decode(other.encode(images), None, (128, 128)).masks - expected).abs().max() > 1e-3
        load_trained(other, tmp_path, "base")
        assert torch.allclose(
            other.decode(other.encode(images), None, (128, 128)).masks, expected, atol=1e-6, rtol=0
        )
    trained = sum(p.numel() for p in ours.parameters() if p.requires_grad)
    assert (tmp_path / "weights.safetensors").stat().st_size < 4 * trained + 40_000
    assert trained < 0.6 * sum(p.numel() for p in base.parameters())


@both
def test_saved_weights_that_do_not_fit_are_refused(
    base: SamModel, tmp_path: Path, method: type, config: type
) -> None:
    save_trained(method(base, config(labels=LABELS)), tmp_path, "base")
    with pytest.raises(
        ValueError, match=r"belong to the backbone 'base', but 'another' is in use\. Train them again"
    ):
        load_trained(method(base, config(labels=LABELS)), tmp_path, "another")
    with pytest.raises(ValueError, match=r"do not fit \w+ as configured .*Use the rank, classes and variant"):
        load_trained(method(base, config(labels=("disc",))), tmp_path, "base")
    with pytest.raises(ValueError, match=r"image size 128, but 160"):
        load_trained(method(tiny_sam(0, 160), config(labels=LABELS)), tmp_path, "base")
    other, other_config = next(m for m in METHODS if m[0] is not method)
    with pytest.raises(ValueError, match=f"the method '{method.name}', but '{other.name}' is in use"):
        load_trained(other(base, other_config(labels=LABELS)), tmp_path, "base")


@both
@pytest.mark.parametrize("side", [384, 512])
def test_other_input_sizes_load_and_run(
    base: SamModel, tmp_path: Path, method: type, config: type, side: int
) -> None:
    ours = method(load_sam(str(save_folder(base, tmp_path)), side), config(labels=LABELS)).eval()
    with torch.inference_mode():
        logits = ours.decode(ours.embed([np.zeros((30, 44), np.uint8)]), None, (30, 44)).masks
    assert ours.input_size == side
    assert logits.shape == (1, 3, 30, 44)
    assert torch.isfinite(logits).all()


@both
def test_bf16_gives_the_same_masks_in_either_order(method: type, config: type) -> None:
    model = tiny_sam(0, 128)
    torch.manual_seed(0)
    ours = method(model, config(labels=LABELS))
    train(ours, 25, rate=6e-3)
    ours.eval()
    state = {name: ours.state_dict()[name] for name in ours.trained_names()}
    after = copy.deepcopy(ours)
    after.model.vision_encoder = prepare_encoder(after.model.vision_encoder, "cpu", "bf16")
    model.vision_encoder = prepare_encoder(model.vision_encoder, "cpu", "bf16")
    before = method(model, config(labels=LABELS)).eval()
    before.load_state_dict(state, strict=False)
    images, truth = example(128)
    with torch.inference_mode():
        maps = [m.decode(m.encode(images), None, (128, 128)).masks.argmax(1) for m in (ours, before, after)]
    assert min(class_dice(maps[0], truth[:, 0].long(), 3)) > 0.6
    for half in maps[1:]:
        assert min(class_dice(maps[0], half, 3)) >= 0.99


@both
@torch.inference_mode()
def test_slices_of_any_shape_and_content(base: SamModel, method: type, config: type) -> None:
    ours = method(base, config(labels=LABELS)).eval()
    for shape in ((61, 143), (143, 61), (5, 300)):
        embedding = ours.embed([np.full(shape, 9, np.uint8)])
        for logits in (
            ours.decode(embedding, None, shape).masks,
            ours.decode(embedding, [[SlicePrompt(box=(1.0, 1.0, 4.0, 4.0))]], shape).masks,
        ):
            assert logits.shape[-2:] == shape
            assert torch.isfinite(logits).all()


@pytest.mark.parametrize(
    "labels",
    [
        (),
        ("",),
        ("liver", "Liver"),
        ("background",),
        ["liver"],
        "liver",
        (1,),
        tuple(str(n) for n in range(256)),
    ],
)
def test_useless_labels_are_refused(labels: object) -> None:
    with pytest.raises(
        ValueError, match=r"allowed is a tuple of 1 to 255 different names.*Name each organ once"
    ):
        ClassConfig(labels)  # type: ignore[arg-type]
