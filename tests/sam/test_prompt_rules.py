"""Masks keep what a prompt promises: boxes are filled, clicks are heeded."""

from __future__ import annotations

import torch
from segmed.sam.prompt_rules import enforce_clicks, fill_box
from torch import Tensor


def _disc(radius: float, side: int = 60, centre: float = 30.0) -> Tensor:
    """Logits that fall by 1 for 4 px, 0 at the radius."""
    y, x = torch.meshgrid(torch.arange(side) * 1.0, torch.arange(side) * 1.0, indexing="ij")
    return (radius - torch.hypot(x - centre, y - centre)) / 4


def test_a_mask_that_is_too_small_grows_to_its_box() -> None:
    box = torch.tensor([18.0, 18.0, 42.0, 42.0])
    grown = fill_box(_disc(8), box) > 0
    reach = grown.any(0).nonzero()[:, 0]
    assert abs(int(reach[0]) - 18) <= 2
    assert abs(int(reach[-1]) - 42) <= 2


def test_a_mask_that_fills_its_box_stays_as_it_is() -> None:
    box = torch.tensor([18.0, 18.0, 42.0, 42.0])
    assert torch.equal(fill_box(_disc(12.5), box), _disc(12.5))


def test_what_lies_outside_of_the_box_does_not_count() -> None:
    logits = torch.maximum(_disc(8), _disc(3, centre=55))
    box = torch.tensor([18.0, 18.0, 42.0, 42.0])
    assert fill_box(logits, box)[30, 30] == fill_box(_disc(8), box)[30, 30] > _disc(8)[30, 30]


def test_a_box_outside_of_the_slice_changes_nothing() -> None:
    assert torch.equal(fill_box(_disc(6), torch.tensor([100.0, 100.0, 120.0, 120.0])), _disc(6))


def test_clicks_win_where_they_are_and_only_among_pixels_that_look_alike() -> None:
    logits, image = torch.full((60, 60), -2.0), torch.zeros(1, 60, 60)
    image[:, :, 30:] = 200
    box = torch.tensor([10.0, 10.0, 49.0, 49.0])
    heeded = enforce_clicks(logits, image, torch.tensor([[28.0, 30.0]]), torch.tensor([1]), box)
    assert heeded[30, 28] > 5
    assert heeded[30, 31] < -1
    assert torch.allclose(heeded[:5], logits[:5], atol=1e-3)
    undone = enforce_clicks(heeded, image, torch.tensor([[28.0, 30.0]]), torch.tensor([0]), box)
    assert undone[30, 28] < -5


def test_a_flat_picture_gives_no_nan() -> None:
    box = torch.tensor([10.0, 10.0, 20.0, 20.0])
    heeded = enforce_clicks(
        torch.zeros(40, 40), torch.zeros(3, 40, 40), torch.tensor([[15.0, 15.0]]), torch.ones(1), box
    )
    assert torch.isfinite(heeded).all()
