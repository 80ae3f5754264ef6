"""Normalised surface Dice against hand-made cases and the definition."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from segmed.evaluation.surface import surface_dice


def _square(a: int, b: int, size: int = 40) -> np.ndarray:
    out = np.zeros((size, size), bool)
    out[a:b, a:b] = True
    return out


def test_equal_masks_and_a_shift_within_and_beyond_the_tolerance() -> None:
    truth = _square(10, 30)
    assert surface_dice(truth, truth, 0.0) == 1.0
    assert surface_dice(_square(11, 31), truth, 1.5) == 1.0
    part = surface_dice(_square(13, 33), truth, 2.0)
    assert 0.05 < part < 0.5
    assert surface_dice(_square(13, 33), truth, 4.5) == 1.0
    assert surface_dice(_square(0, 3), _square(30, 40), 2.0) == 0.0


def test_masks_at_the_border_of_the_slice_are_as_those_within() -> None:
    inner, outer = np.zeros((60, 60), bool), np.zeros((60, 60), bool)
    inner[20:32, 20:40], outer[20:34, 20:38] = True, True
    assert surface_dice(inner, outer, 1.0) == surface_dice(inner[20:40, 20:40], outer[20:40, 20:40], 1.0)


def test_the_spacing_counts_in_volumes() -> None:
    truth = np.zeros((20, 20, 8), bool)
    truth[5:15, 5:15, 2:5] = True
    found = np.roll(truth, 1, axis=2)
    assert surface_dice(found, truth, 1.0, (1, 1, 1)) == 1.0
    assert surface_dice(found, truth, 1.0, (1, 1, 5)) < 0.8
    assert surface_dice(found, truth, 5.0, (1, 1, 5)) == 1.0


def test_empty_masks_and_wrong_input() -> None:
    nothing, truth = np.zeros((40, 40), bool), _square(10, 30)
    assert surface_dice(nothing, truth, 2.0) == surface_dice(truth, nothing, 2.0) == 0.0
    assert math.isnan(surface_dice(nothing, nothing, 2.0))
    with pytest.raises(ValueError, match="cannot be compared"):
        surface_dice(truth, truth[:-1], 2.0)
    with pytest.raises(ValueError, match="Give one per axis"):
        surface_dice(truth, truth, 2.0, (1, 1, 1))


def test_it_says_nothing_on_the_way() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        surface_dice(_square(10, 30), _square(11, 30), 2.0)
