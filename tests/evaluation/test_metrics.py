"""Overlap of masks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from segmed.evaluation.metrics import Overlap


def test_counts() -> None:
    truth = np.array([1, 1, 1, 0, 0, 0, 0, 0], bool)
    found = np.array([1, 0, 1, 1, 0, 0, 0, 0], bool)
    overlap = Overlap.of(found, truth)
    assert overlap == Overlap(tp=2, fp=1, fn=1, tn=4)
    assert overlap.dice() == 4 / 6
    assert overlap.iou() == 2 / 4
    assert overlap.accuracy == 6 / 8


def test_label_maps_count_as_masks() -> None:
    assert Overlap.of(np.array([0, 2, 5]), np.array([0, 1, 0])) == Overlap(1, 1, 0, 1)


@pytest.mark.parametrize("seed", range(20))
def test_iou_and_dice_say_the_same(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.random((2, 9, 8, 7)) < rng.random()
    overlap = Overlap.of(a, b)
    assert overlap.iou("one") == pytest.approx(overlap.dice("one") / (2 - overlap.dice("one")))
    assert overlap.tp + overlap.fp + overlap.fn + overlap.tn == a.size
    assert Overlap.of(b, a) == Overlap(overlap.tp, overlap.fn, overlap.fp, overlap.tn)


def test_empty_masks() -> None:
    none, some = np.zeros((4, 4), bool), np.eye(4, dtype=bool)
    both = Overlap.of(none, none)
    assert (both.dice("one"), both.iou("one")) == (1.0, 1.0)
    assert (both.dice("zero"), both.iou("zero")) == (0.0, 0.0)
    assert math.isnan(both.dice("skip"))
    assert math.isnan(both.iou("skip"))
    assert math.isnan(both.dice())
    assert both.accuracy == 1.0
    for one_empty in (Overlap.of(none, some), Overlap.of(some, none)):
        assert one_empty.dice("one") == one_empty.iou("skip") == 0.0


def test_sums_are_those_of_the_joined_masks() -> None:
    a, b, c, d = np.random.default_rng(0).random((4, 50)) < 0.4
    joined = Overlap.of(np.concatenate([a, c]), np.concatenate([b, d]))
    assert Overlap.of(a, b) + Overlap.of(c, d) == joined


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"Masks of shapes \(4, 4\) and \(4, 1\) cannot be compared"):
        Overlap.of(np.zeros((4, 4)), np.zeros((4, 1)))


def test_nothing_at_all() -> None:
    assert Overlap(0, 0, 0, 0).accuracy == 0.0
