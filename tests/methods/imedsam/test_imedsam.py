"""IMedSAM after training on small models: what has changed, and masks of any size for any prompt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from segmed.imaging.prompts import SlicePrompt
from segmed.methods.base.config_values import build_config
from segmed.methods.base.trainable import load_trained, read_facts, save_trained
from segmed.methods.imedsam.imedsam import Imedsam, ImedsamConfig
from segmed.sam.cpu.precision import prepare_encoder
from small_imedsam import SIZE, STEPS, dice, discs, fresh, mixed_prompts, train
from tiny_sam import tiny_sam
from torch import Tensor


@pytest.fixture(scope="module")
def trained() -> tuple[Imedsam, list[float], dict[str, Tensor]]:
    """The method after training, its losses, and its state before."""
    method = fresh()
    before = {k: v.clone() for k, v in method.state_dict().items()}
    return method, train(method, STEPS), before


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


@torch.inference_mode()
def test_saved_and_loaded(trained: tuple[Imedsam, list[float], dict[str, Tensor]], tmp_path: Path) -> None:
    method = trained[0]
    images, prompts, _ = discs(2, 7)
    wanted = method.decode(method.encode(images), prompts, (80, 60)).masks
    save_trained(method, tmp_path, "b")
    loaded = fresh(build_config(ImedsamConfig, read_facts(tmp_path)["config"]))
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
