"""Scores by hand beside ours, and every policy for empty masks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from segmed.evaluation.segmentation_scores import TOLERANCE, score_mask, summarise

EMPTY = np.zeros((30, 40), bool)


def _box(y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
    mask = EMPTY.copy()
    mask[y0:y1, x0:x1] = True
    return mask


def test_scores_of_one_image() -> None:
    # 20×10 against the same moved by 3 columns: 140 px in common
    summary = summarise([score_mask(_box(5, 25, 13, 23), _box(5, 25, 10, 20))])
    assert summary.dice == pytest.approx(280 / 400)
    assert summary.iou == pytest.approx(140 / 260)
    assert summary.iou == pytest.approx(summary.dice / (2 - summary.dice))
    assert summary.precision == summary.recall == pytest.approx(0.7)
    assert summary.iou_two_classes == pytest.approx((140 / 260 + 940 / 1060) / 2)
    assert summary.hd95 == pytest.approx(3.0)
    assert (summary.missed, summary.images) == (0.0, 1)


def test_precision_and_recall_are_not_mixed_up() -> None:
    summary = summarise([score_mask(_box(0, 10, 0, 10), _box(0, 10, 0, 5))])
    assert (summary.precision, summary.recall) == (0.5, 1.0)


def test_hd95_is_in_mm_and_symmetric() -> None:
    one, other = _box(5, 25, 13, 23), _box(5, 25, 10, 20)
    assert score_mask(one, other, spacing=(1.0, 2.5)).hd95 == pytest.approx(7.5)
    assert score_mask(one, other, spacing=(2.5, 1.0)).hd95 == pytest.approx(3.0)
    # a far speck is in the prediction only: the larger direction counts
    speck = other | _box(0, 6, 39, 40)
    assert score_mask(speck, other).hd95 == score_mask(other, speck).hd95 > 15
    volume = np.stack([other, other, EMPTY], -1), np.stack([other, EMPTY, EMPTY], -1)
    assert score_mask(*volume, spacing=(1.0, 1.0, 4.0)).hd95 == pytest.approx(4.0)


@pytest.mark.parametrize("spacing", [None, (0.7, 2.5), (3.0, 0.5, 1.0)])
def test_surfaces_are_compared_as_by_monai(spacing: tuple[float, ...] | None) -> None:
    generator = np.random.default_rng(0)
    shape = (24, 30) if spacing is None or len(spacing) == 2 else (9, 12, 10)
    for share in (0.002, 0.05, 0.5, 1.0):  # the last ones touch the border
        pair = [generator.random(shape) < share for _ in range(2)]
        pair[0].flat[7] = pair[1].flat[-9] = True
        tensors = [torch.from_numpy(mask[None, None].astype(np.float32)) for mask in pair]
        scale = spacing and list(spacing)
        score = score_mask(pair[0], pair[1], spacing)
        for ours, percentile in ((score.hd95, 95), (score.hd, None)):
            known = compute_hausdorff_distance(
                *tensors, include_background=True, percentile=percentile, spacing=scale
            )
            assert ours == pytest.approx(float(known), rel=1e-5)
        share = compute_surface_dice(*tensors, [TOLERANCE], include_background=True, spacing=scale)
        assert score.nsd == pytest.approx(float(share), rel=1e-5)


def test_empty_masks() -> None:
    truth = _box(5, 25, 10, 20)
    nothing = score_mask(EMPTY, truth)
    phantom = score_mask(truth, EMPTY)
    silence = score_mask(EMPTY, EMPTY)
    assert (nothing.nsd, phantom.nsd) == (0, 0)
    assert math.isnan(silence.nsd)
    assert math.isinf(nothing.hd95)
    assert math.isinf(phantom.hd95)
    assert math.isnan(silence.hd95)
    perfect = score_mask(truth, truth)
    summary = summarise([nothing, perfect, phantom, silence])
    # the main means go over the two images with an object; what was missed counts 0
    assert (summary.dice, summary.iou, summary.precision, summary.recall) == (0.5, 0.5, 0.5, 0.5)
    assert (summary.hd95, summary.missed, summary.nsd) == (0.0, 0.5, 0.5)
    assert summary.dice_all == pytest.approx((0 + 1 + 0 + 1) / 4)
    assert summarise([nothing, perfect, phantom, silence], "zero").dice_all == pytest.approx(1 / 4)
    assert summarise([nothing, perfect, phantom, silence], "skip").dice_all == pytest.approx(1 / 3)
    assert summary.dice_pooled == pytest.approx(400 / 800)
    assert math.isnan(summarise([nothing]).hd95)
    with pytest.raises(ValueError, match="None of 1 images"):
        summarise([silence])


def test_labels_weigh_the_same() -> None:
    truth = _box(5, 25, 10, 20)
    scores = [score_mask(truth, truth, label=1) for _ in range(9)]
    scores.append(score_mask(EMPTY, truth, label=2))
    scores.append(score_mask(truth, EMPTY, label=3))  # a label that is nowhere has no mean
    assert summarise(scores).dice == 0.5


def test_what_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        score_mask(EMPTY, EMPTY[1:])
    with pytest.raises(ValueError, match="spacing of 3 axes"):
        score_mask(EMPTY, EMPTY, spacing=(1, 1, 1))
