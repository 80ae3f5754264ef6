"""Simulated annotators."""

from __future__ import annotations

import pytest
import torch
from segmed.simulation.prompts import (
    PromptConfig,
    click_in,
    correcting_clicks,
    depth,
    first_clicks,
    jittered_boxes,
    tight_boxes,
)
from torch import Tensor


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _disc(x: int, y: int, radius: int, size: int = 64) -> Tensor:
    yy, xx = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return (xx - x) ** 2 + (yy - y) ** 2 <= radius**2


def test_tight_boxes() -> None:
    masks = torch.zeros(3, 20, 30, dtype=torch.bool)
    masks[0, 4:9, 10:21] = True
    masks[1, 0, 29] = True
    assert tight_boxes(masks).tolist() == [[10, 4, 20, 8], [29, 0, 29, 0], [0, 0, 29, 19]]


def test_jitter_keeps_to_its_range_and_uses_it() -> None:
    masks = torch.zeros(4000, 100, 120, dtype=torch.bool)
    masks[:, 40:60, 50:90] = True
    boxes = jittered_boxes(masks, _generator())
    moves = (boxes - torch.tensor([50.0, 40.0, 89.0, 59.0])) * torch.tensor([-1, -1, 1, 1])
    shares = moves / torch.tensor([40.0, 20.0, 40.0, 20.0])
    assert shares.min() >= -0.05 - 1e-5
    assert shares.max() <= 0.20 + 1e-5
    assert shares.amin(0).max() < -0.04
    assert shares.amax(0).min() > 0.19
    # each side moves on its own, but a careless box is careless on all sides
    signs = (shares > 0.075).float()
    assert signs.mean() < 0.4
    assert 0.05 < float(shares.abs().amax(1).quantile(0.5)) < 0.12


def test_jittered_boxes_stay_in_the_image() -> None:
    masks = torch.ones(50, 16, 16, dtype=torch.bool)
    boxes = jittered_boxes(masks, _generator())
    assert boxes.min() >= 0
    assert boxes.max() <= 15


def test_depth_of_a_square() -> None:
    mask = torch.zeros(1, 9, 9, dtype=torch.bool)
    mask[0, 2:7, 2:7] = True
    assert depth(mask)[0, 4, 4] == 3
    assert depth(mask)[0, 2, 2] == 1
    assert depth(mask).sum() == 25 + 9 + 1
    assert depth(torch.ones(1, 5, 5, dtype=torch.bool))[0, 2, 2] == 3


def test_first_clicks_lie_inside_and_half_of_them_in_the_middle() -> None:
    truth = torch.stack([_disc(20, 40, 12)] * 400)
    clicks, labels = first_clicks(truth, _generator(), PromptConfig())
    x, y = clicks.long().unbind(1)
    assert truth[torch.arange(400), y, x].all()
    assert (labels == 1).all()
    central = (clicks - torch.tensor([20.0, 40.0])).norm(dim=1) < 3
    assert 0.45 < central.float().mean() < 0.65


def test_corrections_go_to_the_larger_error() -> None:
    truth = torch.stack([_disc(20, 32, 12)] * 2)
    prediction = torch.stack([_disc(20, 32, 5), _disc(20, 32, 12) | _disc(50, 32, 9)])
    config = PromptConfig(error_share=1.0)
    clicks, labels = correcting_clicks(prediction, truth, _generator(), config)
    assert labels.tolist() == [1, 0]
    x, y = clicks.long().unbind(1)
    assert (truth & ~prediction)[0, y[0], x[0]]
    assert (clicks[1] - torch.tensor([50.0, 32.0])).norm() < 3


def test_a_perfect_prediction_is_confirmed() -> None:
    truth = _disc(20, 32, 12)[None]
    clicks, labels = correcting_clicks(truth, truth, _generator(), PromptConfig())
    assert labels.tolist() == [1]
    assert truth[0, int(clicks[0, 1]), int(clicks[0, 0])]


def test_an_empty_mask_gives_a_pixel_of_the_image() -> None:
    clicks = click_in(torch.zeros(5, 8, 8, dtype=torch.bool), torch.ones(5, dtype=torch.bool), _generator())
    assert ((clicks >= 0) & (clicks < 8)).all()


def test_the_same_generator_gives_the_same_prompts() -> None:
    truth = torch.stack([_disc(20, 40, 12), _disc(40, 20, 6)])
    for draw in (jittered_boxes, lambda m, g: first_clicks(m, g, PromptConfig())[0]):
        assert torch.equal(draw(truth, _generator(3)), draw(truth, _generator(3)))
        assert not torch.equal(draw(truth, _generator(3)), draw(truth, _generator(4)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"error_share": 1.5},
        {"centre_share": -0.1},
        {"box_inward": 0.6},
        {"box_outward": -1.0},
        {"max_rounds": 0},
    ],
)
def test_wrong_settings_are_named(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PromptConfig(**wrong)  # type: ignore[arg-type]
