"""How the default model is made: views, objects, the pool of opened objects, and the loop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from data.test_training_pack import write_pack
from segmed.data.datasets.training_pack import PackImage, TrainingPack
from segmed.data.synthetic.sample import PhantomConfig
from segmed.methods.segmed.losses import step_loss
from segmed.methods.segmed.network import PromptNetwork
from segmed.pretraining.appearance import vary_appearance
from segmed.pretraining.objects import ObjectConfig, ObjectSource
from segmed.pretraining.pool import KINDS, ObjectPool
from segmed.pretraining.tissues import tissue
from segmed.pretraining.trainer import Pretraining, PretrainingConfig
from segmed.pretraining.windows import look_at, neighbour_of, show

PHANTOMS = PhantomConfig(("blobs", "shells"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ObjectSource:
    pack = TrainingPack(write_pack(tmp_path_factory.mktemp("pack")))
    return ObjectSource(pack, ObjectConfig(0.2, 0.1, 0.1, phantoms=PHANTOMS), seed=3)


def _disc() -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:120, :160]
    mask = (x - 70) ** 2 + (y - 50) ** 2 < 18**2
    return np.where(mask, 200, 50).astype(np.uint8), mask


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("on_click", [False, True])
def test_views_show_image_and_mask_alike(seed: int, on_click: bool) -> None:
    image, mask = _disc()
    view = look_at(mask, 64, np.random.default_rng(seed), (1.3, 2.0), on_click)
    window = show(image, mask, view)
    assert window.image.shape == (64, 64, 3)
    bright = window.image[..., 0] > 125 / 255
    assert (bright == (window.truth > 0.5))[window.valid].mean() > 0.97
    assert window.truth.any()
    if not on_click:
        assert window.truth.sum() > 300  # the whole object is in sight


def test_large_views_are_averaged() -> None:
    board = (np.indices((512, 512)).sum(0) % 2 * 255).astype(np.uint8)
    mask = np.zeros((512, 512), bool)
    mask[20:490, 20:490] = True
    window = show(board, mask, look_at(mask, 64, np.random.default_rng(0), (1.0, 1.1), False, bend=0))
    middle = window.image[..., 0][window.valid]
    assert np.quantile(abs(middle - 0.5), 0.95) < 0.15  # but for the last pixels of the image


@pytest.mark.parametrize("seed", range(8))
def test_neighbours_differ_a_little(seed: int) -> None:
    image, mask = _disc()
    rng = np.random.default_rng(seed)
    view = look_at(mask, 64, rng, (1.4, 1.6), False)
    here, near = show(image, mask, view), show(image, mask, neighbour_of(view, rng))
    both = (here.truth > 0.5) & (near.truth > 0.5)
    dice = 2 * both.sum() / ((here.truth > 0.5).sum() + (near.truth > 0.5).sum())
    assert 0.4 < dice < 1


def test_looks_change_and_places_stay() -> None:
    images = torch.zeros(8, 3, 48, 64)
    images[:, :, 10:30, 20:40] = 0.8
    valid = torch.ones(8, 48, 64, dtype=torch.bool)
    valid[:, :, 60:] = False
    varied = vary_appearance(images, valid, np.random.default_rng(0))
    assert varied.shape == images.shape
    assert varied.min() >= 0
    assert varied.max() <= 1
    assert not varied[..., 60:].any()
    assert (varied != images).flatten(1).any(1).sum() > 4
    contrast = (varied[:, :, 12:28, 22:38].mean((1, 2, 3)) - varied[:, :, 34:, :50].mean((1, 2, 3))).abs()
    assert (contrast > 0.1).sum() >= 6


def test_objects_are_the_same_whenever_asked_for_and_of_all_kinds(source: ObjectSource) -> None:
    kinds = [source.object(n).kind for n in range(60)]
    assert {"real", "synthetic", "superpixel", "tissue"} == set(kinds)
    for n in (0, 7, 31):
        one, other = source.object(n), source.object(n)
        assert (one.mask == other.mask).all()
        assert (one.image == other.image).all()
        assert one.mask.any()


def test_a_tissue_is_what_is_equally_bright_with_its_holes() -> None:
    yy, xx = np.mgrid[:128, :128]
    away = np.hypot(yy - 60, xx - 64)
    wall = (away < 40) & (away > 20)
    noise = np.random.default_rng(0).normal(0, 3, wall.shape)
    pixels = (60 + 90 * wall + 40 * (away <= 20) + noise).clip(0, 255).astype(np.uint8)
    image = PackImage(pixels, wall.astype(np.uint8), {"source": "phantom", "labels": "semantic"})
    rng = np.random.default_rng(1)
    found = [mask for mask in (tissue(image, rng) for _ in range(20)) if mask is not None]
    overlaps = [2 * (mask & wall).sum() / (mask.sum() + wall.sum()) for mask in found]
    assert max(overlaps) > 0.95
    assert not any(mask[0, 0] for mask in found)  # never the background
    flat = PackImage(np.full_like(pixels, 90), wall.astype(np.uint8), image.entry)
    assert tissue(flat, rng) is None


def test_sources_of_a_modality_share_its_weight(tmp_path: Path) -> None:
    pack = TrainingPack(write_pack(tmp_path))
    balanced = ObjectSource(pack, ObjectConfig(0, 0, 0))
    assert balanced.chances.sum() == pytest.approx(1)
    by_name = dict(zip(balanced.names, balanced.chances, strict=True))
    assert by_name["organs"] > by_name["polyps"]  # CT is shown more often than endoscopy


def test_pools_hold_every_kind_of_prompt_and_go_on_to_the_same_objects(source: ObjectSource) -> None:
    one, other = ObjectPool(source, 24, 64, seed=5), ObjectPool(source, 24, 64, seed=5)
    one.refill()
    images, truth, valid, prompts, lone = one.tensors()
    assert images.shape == (24, 3, 64, 64)
    assert truth.shape == valid.shape == (24, 64, 64)
    assert {o.kind for o in one.opened} == set(KINDS)
    assert lone.any()
    assert (~prompts.boxes[:, 0].isnan()).any()
    assert (prompts.neighbour >= 0).flatten(1).all(1).any()
    found = np.random.default_rng(0).random((24, 64, 64)).astype(np.float32)
    one.correct(found)
    assert 0 < len(one.opened) < 24
    assert all(o.rounds == 2 for o in one.opened)
    other.restore(one.state())
    for pool in (one, other):
        pool.refill()
    for a, b in zip(one.tensors()[:3], other.tensors()[:3], strict=True):
        assert torch.equal(a, b)


def test_processes_side_by_side_show_different_objects(source: ObjectSource) -> None:
    pools = [ObjectPool(source, 8, 64, seed=9, stride=2, first=n) for n in range(2)]
    for pool in pools:
        pool.refill()
    assert not torch.equal(pools[0].tensors()[1], pools[1].tensors()[1])


def test_a_lone_click_is_taught_by_its_best_mask() -> None:
    truth = torch.zeros(2, 32, 32)
    truth[:, 8:24, 8:24] = 1
    right = (truth[0] * 20 - 10)[None]
    logits = torch.cat([-right, -right, right, -right])[None].repeat(2, 1, 1, 1).requires_grad_()
    quality = torch.tensor([[0.9, 0.2, 0.3, 0.1]]).repeat(2, 1)
    lone = torch.tensor([True, False])
    loss, iou, chosen = step_loss(logits, quality, truth, lone)
    assert chosen.tolist() == [2, 0]
    assert iou.tolist() == pytest.approx([1, 0])
    loss.backward()
    assert logits.grad is not None
    assert not logits.grad[0, 0].any()  # a click does not teach the mask of other prompts
    assert not logits.grad[1, 1:].any()
    assert logits.grad[1, 0].any()


def _run(source: ObjectSource, folder: Path, steps: int, until: int | None = None) -> Pretraining:
    torch.manual_seed(0)
    config = PretrainingConfig(steps=steps, validate_every=2, warmup=2)
    validation = {"held out": lambda: _opened(source)}
    run = Pretraining(PromptNetwork(), config, ObjectPool(source, 6, 64, seed=1), validation, folder)
    run.run(until=until)
    return run


def _opened(source: ObjectSource) -> ObjectPool:
    pool = ObjectPool(source, 10, 64, seed=77)
    pool.refill()
    return pool


def test_two_steps_and_two_more_are_four_steps(source: ObjectSource, tmp_path: Path) -> None:
    whole = _run(source, tmp_path / "whole", 4)
    _run(source, tmp_path / "halves", 4, until=2)
    halves = _run(source, tmp_path / "halves", 4)
    assert halves.step == whole.step == 4
    for one, other in zip(whole.network.parameters(), halves.network.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    for one, other in zip(whole.average.parameters(), halves.average.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    assert [entry["step"] for entry in halves.log] == [2, 4]
    assert {"held out box", "held out click"} <= set(halves.log[0])


def test_the_image_half_stays_as_it_was_unless_asked(source: ObjectSource, tmp_path: Path) -> None:
    torch.manual_seed(0)
    fresh = PromptNetwork()
    run = _run(source, tmp_path, 2)
    for one, other in zip(
        fresh.encoder.early_parameters(), run.network.encoder.early_parameters(), strict=True
    ):
        assert torch.equal(one, other)
    assert not torch.equal(fresh.masks.weight, run.network.masks.weight)


def test_checkpoints_of_other_settings_and_damaged_ones_are_refused(
    source: ObjectSource, tmp_path: Path
) -> None:
    _run(source, tmp_path, 2)
    pool = ObjectPool(source, 6, 64, seed=1)
    with pytest.raises(ValueError, match="other settings"):
        Pretraining(PromptNetwork(), PretrainingConfig(learning_rate=1e-5), pool, {}, tmp_path)
    (tmp_path / "checkpoint.pt").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="damaged"):
        Pretraining(PromptNetwork(), PretrainingConfig(), pool, {}, tmp_path)


def test_rates_rise_stay_and_fall() -> None:
    config = PretrainingConfig(steps=100, warmup=10, decay=0.4, learning_rate=1.0)
    assert config.rate(0) == pytest.approx(0.1)
    assert config.rate(30) == config.rate(59) == pytest.approx(1)
    assert 0.4 < config.rate(80) < 0.6
    assert config.rate(99) < 0.01
    assert replace(config, steps=200).rate(80) == 1
    with pytest.raises(ValueError, match="at least 1"):
        PretrainingConfig(steps=0)
    with pytest.raises(ValueError, match="shares from 0 to 1"):
        ObjectConfig(synthetic_share=2)
