"""The order of slices: by chance, each once, and each volume read once with little in memory."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import numpy as np
from segmed.training.order import SliceOrder

VOLUMES = [n // 10 for n in range(200)]


def _noted(loaded: list[int], number: int) -> int:
    loaded.append(number)
    return number


def test_each_slice_once_and_each_volume_in_one_go() -> None:
    order = SliceOrder.draw(VOLUMES, 40, (0, 1))
    assert sorted(order.places) == sorted(order.stream) == list(range(200))
    volumes = [VOLUMES[n] for n in order.stream]
    assert sum(a != b for a, b in pairwise(volumes)) == 19
    assert volumes[::10] != sorted(volumes[::10])
    assert order == SliceOrder.draw(VOLUMES, 40, (0, 1))
    assert order.places != SliceOrder.draw(VOLUMES, 40, (0, 2)).places


def test_neighbouring_steps_see_several_volumes() -> None:
    order = SliceOrder.draw(VOLUMES, 40, (3, 0))
    seen = [len({VOLUMES[n] for n in order.places[start : start + 8]}) for start in range(0, 160, 8)]
    assert np.mean(seen) > 3
    one = SliceOrder.draw(VOLUMES, 1, (3, 0))
    assert one.places == one.stream


def test_a_large_buffer_is_a_plain_shuffle() -> None:
    firsts = [SliceOrder.draw(list(range(8)), 100, (seed, 0)).places for seed in range(4000)]
    counts = np.zeros((8, 8))
    for places in firsts:
        counts[np.arange(8), places] += 1
    assert np.abs(counts / 4000 - 1 / 8).max() < 0.02


def test_reading_holds_no_more_than_the_buffer() -> None:
    order = SliceOrder.draw(VOLUMES, 40, (5, 0))
    loaded: list[int] = []
    for taken, number in enumerate(order.read(partial(_noted, loaded), range(200))):
        assert number == order.places[taken]
        assert len(loaded) - taken <= 40
    assert tuple(loaded) == order.stream


def test_a_part_reads_its_own_slices_only() -> None:
    """As when a run goes on in the middle of a pass, or shares it with another process."""
    order = SliceOrder.draw(VOLUMES, 40, (5, 0))
    loaded: list[int] = []
    positions = range(101, 200, 2)
    assert list(order.read(partial(_noted, loaded), positions)) == [order.places[p] for p in positions]
    assert sorted(loaded) == sorted(order.places[p] for p in positions)
