"""Drawn training pictures: replayable, in range, and with objects that are really there."""

from __future__ import annotations

import pytest
import torch
from segmed.data.drawing.modalities import MODALITIES, blur
from segmed.data.drawing.noise import Dice, smooth_noise
from segmed.data.drawing.sample import DrawingConfig, draw
from segmed.data.drawing.shapes import SHAPES


def test_a_seed_draws_the_same_pictures_whatever_was_drawn_before() -> None:
    first = draw(4, 64, seed=3)
    torch.rand(7)
    draw(2, 32, seed=1)
    again, other = draw(4, 64, seed=3), draw(4, 64, seed=4)
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.targets, again.targets)
    assert not torch.equal(first.images, other.images)


def test_shapes_and_ranges() -> None:
    drawing = draw(24, 96, seed=0)
    assert drawing.images.shape == (24, 3, 96, 96)
    assert drawing.targets.shape == (24, 4, 96, 96)
    assert drawing.targets.dtype == torch.bool
    assert drawing.images.min() >= 0
    assert drawing.images.max() <= 1
    assert torch.equal((drawing.images * 255).round() / 255, drawing.images)
    assert torch.isfinite(drawing.images).all()
    assert (drawing.images.flatten(1).std(1) > 0.01).all()


def test_targets_are_there_do_not_overlap_and_have_every_size() -> None:
    drawing = draw(64, 128, seed=1)
    area = drawing.targets.float().mean((2, 3))
    assert (area[drawing.valid] >= DrawingConfig().smallest).all()
    assert drawing.valid[:, 0].float().mean() > 0.95
    assert (drawing.targets.sum(1) <= 1).all()
    tiny = (area[drawing.valid] < 0.01).float().mean()
    assert 0.2 <= tiny <= 0.6
    assert (area[drawing.valid] > 0.05).float().mean() > 0.1


def test_some_targets_touch_each_other() -> None:
    drawing = draw(32, 96, seed=2)
    grown = torch.nn.functional.max_pool2d(drawing.targets.float(), 3, 1, 1) > 0
    touching = (grown[:, :, None] & drawing.targets[:, None]).flatten(3).any(3)
    touching &= ~torch.eye(4, dtype=torch.bool)
    assert touching.flatten(1).any(1).float().mean() > 0.2


@pytest.mark.parametrize("name", list(SHAPES))
def test_every_shape_alone(name: str) -> None:
    drawing = draw(8, 64, seed=5, config=DrawingConfig(shapes=(name,)))
    assert drawing.valid.any()


@pytest.mark.parametrize("name", list(MODALITIES))
def test_every_modality_alone(name: str) -> None:
    drawing = draw(6, 64, seed=6, config=DrawingConfig(modalities=(name,)))
    coloured = (drawing.images.amax(1) - drawing.images.amin(1)).amax() > 0.05
    assert bool(coloured) is (name in ("camera", "microscope"))


def test_targets_stand_out_from_their_surroundings() -> None:
    drawing = draw(64, 128, seed=7, config=DrawingConfig(modalities=("ct", "mr")))
    inside = drawing.targets[:, 0]
    around = (torch.nn.functional.max_pool2d(inside[:, None].float(), 15, 1, 7)[:, 0] > 0) & ~inside
    grey = drawing.images[:, 0]
    means = [(grey * m).sum((1, 2)) / m.sum((1, 2)).clamp(min=1) for m in (inside, around)]
    difference = (means[0] - means[1]).abs()[drawing.valid[:, 0]]
    assert difference.median() > 0.05
    assert (difference < 0.05).float().mean() > 0.1  # low contrast exists too


def test_noise_has_the_asked_structure_size() -> None:
    dice = Dice(torch.Generator().manual_seed(0))
    coarse, fine = (smooth_noise(dice, 8, 1, 64, cells)[:, 0] for cells in (4, 32))

    def roughness(field: torch.Tensor) -> float:
        return float(field.diff(dim=-1).abs().mean())

    assert roughness(fine) > 3 * roughness(coarse)
    assert abs(float(fine.std()) - 1) < 0.05


def test_blur_keeps_the_mean_and_spreads_a_point() -> None:
    point = torch.zeros(2, 33, 33)
    point[:, 16, 16] = 1
    out = blur(point, torch.tensor([0.05, 2.0]))
    assert torch.allclose(out.sum((1, 2)), torch.ones(2), atol=1e-4)
    assert out[0, 16, 16] > 0.99
    assert out[1, 16, 16] < 0.06


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"shapes": ("star",)}, "choose from blob"),
        ({"modalities": ()}, "choose from ct"),
        ({"objects": 2, "targets": 3}, "at least targets"),
        ({"smallest": 0.0}, "smallest"),
    ],
)
def test_wrong_settings_are_named(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DrawingConfig(**wrong)  # type: ignore[arg-type]
