"""Carrying a mask through slices, and stopping where the object ends."""

from __future__ import annotations

import numpy as np
import pytest
from segmed.imaging.prompts import SlicePrompt
from segmed.inference.propagation import PropagationRule, box_around, propagate


def _ball(radius: float = 12.0, depth: int = 40, centre: int = 20) -> np.ndarray:
    i, j, k = np.mgrid[:64, :60, :depth]
    return (i - 30) ** 2 + (j - 28) ** 2 + (k - centre) ** 2 < radius**2


def _propagate(
    truth: np.ndarray, picture: np.ndarray, anchors: list[int]
) -> tuple[dict[int, np.ndarray], list[int]]:
    """With a segmenter that finds bright pixels in the box."""
    asked: list[int] = []

    def predict(k: int, prompt: SlicePrompt) -> np.ndarray:
        asked.append(k)
        assert prompt.box is not None
        x0, y0, x1, y1 = (int(v) for v in prompt.box)
        mask = np.zeros(picture.shape[1::-1], bool)
        mask[y0 : y1 + 1, x0 : x1 + 1] = picture[x0 : x1 + 1, y0 : y1 + 1, k].T > 100
        return mask

    found = propagate(
        {k: truth[:, :, k].T for k in anchors}, truth.shape[2], predict, lambda k: picture[:, :, k].T
    )
    return found, asked


def test_a_ball_is_found_to_its_poles_and_no_further() -> None:
    truth = _ball()
    picture = np.where(truth, 180, 40).astype(np.uint8)
    found, asked = _propagate(truth, picture, [20])
    ks = np.flatnonzero(truth.any(axis=(0, 1)))
    assert min(found) <= ks[0] + 2
    assert max(found) >= ks[-1] - 2
    assert min(found) >= ks[0]
    assert max(found) <= ks[-1]
    assert all((found[k] == truth[:, :, k].T).all() for k in found)
    assert min(asked) >= ks[0] - 1  # one slice beyond the end is tried, no more
    assert max(asked) <= ks[-1] + 1


def test_a_tube_is_followed_to_the_last_slice() -> None:
    truth = np.repeat(_ball()[:, :, 20:21], 30, axis=2)
    found, _ = _propagate(truth, np.where(truth, 180, 40).astype(np.uint8), [7])
    assert sorted(found) == list(range(30))


def test_a_leak_into_a_larger_neighbour_stops() -> None:
    truth = np.repeat(_ball()[:, :, 20:21], 30, axis=2)
    picture = np.where(truth, 180, 40).astype(np.uint8)
    picture[:, :, 15:] = 180  # from here on everything is as bright as the object
    found, _ = _propagate(truth, picture, [7])
    assert max(found) == 14


def test_other_grey_values_stop() -> None:
    truth = np.repeat(_ball()[:, :, 20:21], 30, axis=2)
    picture = np.where(truth, 180, 40).astype(np.uint8)
    picture[:, :, 20:][truth[:, :, 20:]] = 240  # same shape, another organ
    found, _ = _propagate(truth, picture, [7])
    assert max(found) == 19


def test_slices_between_two_anchors_go_with_the_nearer() -> None:
    truth = np.repeat(_ball()[:, :, 20:21], 21, axis=2)
    picture = np.where(truth, 180, 40).astype(np.uint8)
    found, asked = _propagate(truth, picture, [5, 15])
    assert sorted(found) == list(range(21))
    assert len(asked) == len(set(asked)) == 19


def test_empty_anchors_give_nothing() -> None:
    truth = np.zeros((8, 8, 5), bool)
    assert _propagate(truth, np.zeros((8, 8, 5), np.uint8), [2]) == ({}, [])


def test_box_is_clipped() -> None:
    mask = np.zeros((20, 30), bool)
    mask[2:5, 26:29] = True
    assert box_around(mask, 5).box == (21.0, 0.0, 29.0, 9.0)


@pytest.mark.parametrize(("now", "before", "holds"), [(100, 100, True), (4, 100, False), (160, 100, False)])
def test_rule_on_areas(now: int, before: int, holds: bool) -> None:
    row = np.arange(400)
    assert PropagationRule().holds(row < now, row < before) is holds


def test_rule_on_overlap() -> None:
    row = np.arange(400)
    assert not PropagationRule().holds((row >= 50) & (row < 150), row < 100)
