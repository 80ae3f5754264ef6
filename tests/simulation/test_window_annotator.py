"""The simulated annotator of windows."""

from __future__ import annotations

import numpy as np
import pytest
from segmed.simulation.noise import resample
from segmed.simulation.window_annotator import Prompted, click_in, correct, draw_box, roughen, scribble_in

S = 96
Y, X = np.mgrid[:S, :S]
TRUTH = (X - 50) ** 2 + (Y - 40) ** 2 < 22**2


@pytest.mark.parametrize("seed", range(20))
def test_boxes_hold_most_of_the_object_and_little_more(seed: int) -> None:
    x0, y0, x1, y1 = draw_box(TRUTH, np.random.default_rng(seed))
    inside = (x0 <= X) & (x1 >= X) & (y0 <= Y) & (y1 >= Y)
    assert (TRUTH & inside).sum() > 0.9 * TRUTH.sum()
    assert (x1 - x0) * (y1 - y0) < 2.1 * 43**2


@pytest.mark.parametrize("seed", range(20))
def test_clicks_and_scribbles_lie_in_their_region(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = click_in(TRUTH, rng)
    assert TRUTH[int(y), int(x)]
    stroke = scribble_in(TRUTH, rng)
    assert stroke.any()
    assert stroke.min() >= 0
    assert stroke.max() <= 1
    beyond = (X - 50) ** 2 + (Y - 40) ** 2 > 25**2
    assert not stroke[beyond].any()
    assert (stroke > 0.5).sum() < 0.4 * TRUTH.sum()


def test_the_deepest_place_is_the_middle() -> None:
    x, y = click_in(TRUTH, np.random.default_rng(0), deepest_share=1.0)
    assert np.hypot(x - 50, y - 40) < 4


@pytest.mark.parametrize("seed", range(20))
def test_rough_masks_are_about_right(seed: int) -> None:
    rough = roughen(TRUTH, np.random.default_rng(seed)) > 0.5
    dice = 2 * (rough & TRUTH).sum() / (rough.sum() + TRUTH.sum())
    assert dice > 0.5


def test_corrections_go_where_the_mask_is_wrong() -> None:
    found = TRUTH & (X < 50)
    leak = (X - 20) ** 2 + (Y - 80) ** 2 < 5**2
    for seed in range(20):
        rng = np.random.default_rng(seed)
        told = correct(Prompted(), (found | leak).astype(np.float32), TRUTH, rng)
        assert told is not None
        for (x, y), label in zip(told.points, told.labels, strict=True):
            assert label == 1  # the missed half reaches deeper than the leak
            assert TRUTH[int(y), int(x)]
            assert not found[int(y), int(x)]
    told = correct(Prompted(), (TRUTH | leak).astype(np.float32), TRUTH, np.random.default_rng(3))
    assert told is not None
    assert told.labels == [0] or told.scribbles is not None
    assert correct(Prompted(), TRUTH.astype(np.float32), TRUTH, np.random.default_rng(0)) is None


def test_some_corrections_come_without_the_mask_before() -> None:
    found = (TRUTH & (X < 50)).astype(np.float32)
    told = [correct(Prompted(), found, TRUTH, np.random.default_rng(n), forget=0.5) for n in range(40)]
    share = sum(t is not None and t.previous is None for t in told) / len(told)
    assert 0.2 < share < 0.8


def test_a_lone_click_is_ambiguous() -> None:
    prompted = Prompted().with_click((3.0, 4.0), 1)
    assert prompted.is_lone_click
    assert not prompted.with_click((5.0, 5.0), 0).is_lone_click
    assert not prompted.with_scribble(TRUTH.astype(np.float32), 1).is_lone_click


def test_resampling_repeats_the_edge_or_ends() -> None:
    image = np.arange(16, dtype=np.float32).reshape(4, 4)
    places = np.array([[[1.5, 0.0], [9.0, 3.0]]], np.float32)
    assert resample(image, places).tolist() == [[1.5, 0.0]]
    assert resample(image, places, repeat_edge=True).tolist() == [[1.5, 15.0]]
