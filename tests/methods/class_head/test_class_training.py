"""What LoRA-SAM and SAM-Adapter train, by which loss, and which labels they refuse."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from class_methods import BACKBONES, LABELS, both, example, snapshot, train
from segmed.imaging.prompts import SlicePrompt
from segmed.methods.lora import LoraSam, LoraSamConfig
from segmed.methods.sam.class_head import head_names
from transformers import SamModel


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
