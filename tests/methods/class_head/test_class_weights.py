"""Trained class heads are saved and loaded, at other input sizes and in bf16 too, and only where they fit."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from class_methods import LABELS, METHODS, both, class_dice, example, train
from segmed.methods.base.config_values import build_config
from segmed.methods.base.trainable import load_trained, read_facts, save_trained
from segmed.sam.cpu.precision import prepare_encoder
from segmed.sam.weights import load_sam
from tiny_sam import save_folder, tiny_sam
from transformers import SamModel


@both
def test_saved_weights_come_back(base: SamModel, tmp_path: Path, method: type, config: type) -> None:
    torch.manual_seed(0)
    ours = method(base, config(labels=LABELS))
    train(ours, 3)
    save_trained(ours, tmp_path, "base")
    torch.manual_seed(1)
    other = method(base, build_config(config, read_facts(tmp_path)["config"]))
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
