"""Scorers look at informative slices only and ask for objects and clicks that differ."""

from __future__ import annotations

import numpy as np
import pytest
from segmed.active.scoring.proposals import (
    box_of,
    class_objects,
    click_prompts,
    distinct_objects,
    region_objects,
)
from segmed.active.scoring.scorer import Scorer, informative_slices, pool_slices
from segmed.imaging.picture import Picture
from segmed.methods.classical import Classical
from told_masks import CONFIG, Told, noisy_picture


def test_slices_and_pooling() -> None:
    picture = noisy_picture(20)
    picture.array[:, :, :8] = 3
    assert informative_slices(picture, 3) == [10, 14, 18]
    assert informative_slices(picture, 100) == list(range(8, 20))
    scores = [{"a": 0.1, "b": float("nan")}, {"a": 0.5}, {"a": 0.3, "b": 1.0}]
    assert pool_slices(scores, 0.5) == pytest.approx({"a": 0.4, "b": 1.0})
    assert pool_slices(scores, 0.01) == pytest.approx({"a": 0.5, "b": 1.0})
    assert pool_slices([], 0.5) == {}


def test_clicks() -> None:
    clicks = [tuple(p.points[0]) for p in click_prompts((40, 80), 2)]
    assert clicks == [(20, 10), (20, 30), (60, 10), (60, 30)]
    places = np.array([[0.5, 0.5], [0.51, 0.5], [0.1, 0.1], [1.0, 1.0]])
    placed = {tuple(p.points[0]) for p in click_prompts((40, 80), 2, places)}
    assert placed == {(40, 20), (8, 4), (79, 39)}  # two of the places are one


def test_objects() -> None:
    masks = np.zeros((5, 50, 50), bool)
    masks[0, 10:20, 10:20], masks[1, 10:21, 10:20], masks[2, 30:40, 30:45] = True, True, True
    masks[3], masks[4, 0, 0] = True, True  # background and speck
    found = distinct_objects(masks, np.array([0.5, 0.9, 0.3, 1.0, 1.0]), 3)
    assert [m.sum() for m in found] == [110, 150]
    classes = np.zeros((50, 50), int)
    classes[masks[0]], classes[masks[2]], classes[0, 0] = 1, 2, 1
    assert [m.sum() for m in class_objects(classes, 3)] == [150, 100]
    assert box_of(masks[0], (100, 200)) == (40, 20, 79, 39)
    image = noisy_picture(1).slice(0).astype(float)
    box = box_of(region_objects(image, 1)[0], (64, 64))
    assert box == pytest.approx((20, 24, 39, 49), abs=1.5)
    assert region_objects(np.zeros((40, 40)), 3) == []


def test_flat_images_have_an_embedding_only() -> None:
    flat = Picture(np.full((64, 64, 5), 7, np.uint8), np.eye(4), "f", "auto")
    for method in (Classical(), Told(lambda i, p, s: np.full(s, -20.0))):
        found = Scorer(method, CONFIG).score(flat)
        assert found
        assert found.scores == {}
        assert np.isfinite(found.embedding).all()
        assert found.slices == (2,)
