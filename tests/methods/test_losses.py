"""Mask losses against values worked out by hand."""

from __future__ import annotations

import pytest
import torch
from segmed.methods.base.losses import dice_loss, extent_loss, focal_loss, iou_of, mask_loss
from torchvision.ops import sigmoid_focal_loss


def test_focal_loss_is_the_published_one() -> None:
    logits, truth = torch.randn(3, 2, 8, 8), (torch.rand(3, 1, 8, 8) > 0.5).float()
    published = sigmoid_focal_loss(logits, truth.expand_as(logits), alpha=-1, gamma=2, reduction="none").mean(
        (-2, -1)
    )
    assert torch.allclose(focal_loss(logits, truth), published, atol=1e-6)


def test_dice_loss_of_sure_masks() -> None:
    truth = torch.zeros(1, 1, 10, 10)
    truth[..., :5] = 1
    sure = torch.where(truth > 0, 50.0, -50.0)
    assert dice_loss(sure, truth).item() == pytest.approx(0, abs=1e-6)
    assert dice_loss(-sure, truth).item() == pytest.approx(1 - 1 / 101, abs=1e-6)
    half = sure.clone()
    half[..., :5, :] = -50
    assert dice_loss(half, truth).item() == pytest.approx(1 - 51 / 76, abs=1e-6)


def test_extent_loss_tells_a_ring_from_its_hole() -> None:
    y, x = torch.meshgrid(torch.arange(20) - 9.5, torch.arange(20) - 9.5, indexing="ij")
    radius = torch.hypot(x, y)
    ring = ((radius < 9) & (radius >= 5)).float()
    hole, disc = (torch.where(radius < limit, 50.0, -50.0) for limit in (5, 9))
    assert extent_loss(disc, ring).item() == pytest.approx(0, abs=1e-6)
    assert extent_loss(hole, ring).item() == pytest.approx(1 - 21 / 29, abs=1e-6)  # 10 of 18 rows


def test_losses_are_per_mask() -> None:
    assert mask_loss(torch.randn(4, 3, 8, 8), torch.ones(4, 1, 8, 8)).shape == (4, 3)


def test_iou() -> None:
    truth = torch.zeros(1, 1, 4, 4)
    truth[..., :2] = 1
    logits = torch.full((1, 2, 4, 4), -1.0)
    logits[:, 0, :, 1:3] = 1
    iou = iou_of(logits, truth)
    assert iou.tolist() == [[pytest.approx(4 / 12), 0.0]]
    assert not iou.requires_grad
