"""Corrections of volumes far from the former mask, and beside slices that the user has drawn on."""

from __future__ import annotations

import numpy as np
from segmed.imaging.prompts import Box, Prompt, SlicePrompt
from segmed.inference.neighbour_walk import NeighbourWalk

SIZE, DEPTH = (64, 64), 32
Masks = dict[int, np.ndarray]


def _disc(x: float, y: float, radius: float = 8.0) -> np.ndarray:
    rows, columns = np.ogrid[: SIZE[0], : SIZE[1]]
    return np.asarray((rows - y) ** 2 + (columns - x) ** 2 < radius**2)


def _volume(masks: Masks) -> np.ndarray:
    out = np.zeros((*SIZE, DEPTH), bool)
    for k, mask in masks.items():
        out[:, :, k] = mask.T
    return out


def _corrected(truth: Masks, prompt: Prompt) -> Masks:
    """By a model that finds the object by its clicks, or where it overlaps the neighbour's mask."""

    def predict(k: int, asked: SlicePrompt) -> tuple[np.ndarray, float]:
        mask = truth.get(k, np.zeros(SIZE, bool))
        clicked = (len(asked.points) > 0 or asked.scribbles is not None) and asked.neighbour is None
        known = asked.mask if asked.neighbour is None else asked.neighbour.mask
        seen = clicked or (known is not None and (known & mask).any())
        return (mask if seen else np.zeros(SIZE, bool)), 1.0

    def image(k: int) -> np.ndarray:
        return np.where(truth.get(k, np.zeros(SIZE, bool)), 180, 40).astype(np.uint8)

    return NeighbourWalk(prompt, DEPTH, image, predict).run()


def test_a_click_far_from_the_former_mask_shows_the_object_and_fills_the_gap() -> None:
    truth = {k: _disc(14 + k, 14 + k) for k in range(3, 29)}  # moves on by one px per slice
    former = _volume({k: truth[k] for k in range(3, 8)})
    # by slice 22 it has moved out of the reach of the neighbour's mask
    found = _corrected(truth, Prompt(mask=former, foreground=((36, 36, 22),)))
    assert found[22][36, 36]
    assert all(k in found and found[k].any() for k in range(8, 22))
    assert 28 in found  # an error reaches as far beyond its click as on the side of the former mask


def test_a_stroke_far_from_the_former_mask_shows_the_object_as_well() -> None:
    truth = {k: _disc(14 + k, 14 + k) for k in range(3, 29)}
    former = _volume({k: truth[k] for k in range(3, 8)})
    stroke = np.zeros(SIZE, np.int8)
    stroke[36, 33:40] = 1
    found = _corrected(truth, Prompt(mask=former, scribbles={22: stroke}))
    assert found[22][36, 33:40].all()
    assert all(k in found for k in range(8, 22))


def test_a_click_far_away_is_answered_near_the_object_only() -> None:
    truth = {3: _disc(20, 20), 4: _disc(20, 20), 20: np.ones(SIZE, bool)}
    former = _volume({k: truth[k] for k in (3, 4)})
    found = _corrected(truth, Prompt(mask=former, foreground=((36, 36, 20),)))
    assert found[20][36, 36]
    assert not found[20][60, 60]


def test_a_correction_beside_the_slice_of_the_box_leaves_that_slice_as_it_is() -> None:
    truth = {k: _disc(30, 30, 6) for k in range(8, 24)}
    former = {k: _disc(30, 30, 10) for k in range(8, 24)}
    box = Box((20, 40), (20, 40), (16, 16))
    found = _corrected(truth, Prompt(box, background=((37, 30, 15),), mask=_volume(former)))
    assert found[15].sum() < former[15].sum()
    assert (found[16] == former[16]).all()
    # nor does it change what lies behind that slice
    assert (found[17] == former[17]).all()
    assert found[14].sum() < former[14].sum()
