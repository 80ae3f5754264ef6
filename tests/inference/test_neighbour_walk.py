"""Volumes from prompted slices by methods that read the neighbouring slice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from segmed.evaluation.metrics import Overlap
from segmed.imaging.labels.masks import slice_box
from segmed.imaging.prompts import Box, Prompt, SlicePrompt
from segmed.inference.corrections import near_clicks
from segmed.inference.neighbour_walk import NeighbourWalk

SHAPE = (64, 60, 32)
Masks = dict[int, np.ndarray]


def _ball(radius: float = 14.0, centre: tuple[int, int, int] = (30, 28, 16)) -> np.ndarray:
    i, j, k = np.mgrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    x, y, z = centre
    return np.asarray((i - x) ** 2 + (j - y) ** 2 + (k - z) ** 2 < radius**2)


class Seer:
    """Finds the bright pixels near what it is told about, as a good model does; remembers what it was
    asked."""

    def __init__(self, truth: np.ndarray, seen: np.ndarray | None = None) -> None:
        self.truth = truth
        self.seen = truth if seen is None else seen  # what it takes for the object without a click
        self.asked: list[tuple[int, SlicePrompt]] = []
        self.quality: dict[int, float] = {}
        self.image = np.where(truth, 180, 40).astype(np.uint8)

    def __call__(self, k: int, prompt: SlicePrompt) -> tuple[np.ndarray, float]:
        self.asked.append((k, prompt))
        mask = self.seen[:, :, k].T.copy()
        for x, y in prompt.points.astype(int):
            near = np.hypot(*np.ogrid[-y : SHAPE[1] - y, -x : SHAPE[0] - x]) < 6
            mask[near] = self.truth[:, :, k].T[near]
        return mask, self.quality.get(k, 1.0)

    def run(
        self, prompt: Prompt, change: Callable[[NeighbourWalk], NeighbourWalk] = lambda walk: walk
    ) -> Masks:
        return change(NeighbourWalk(prompt, SHAPE[2], lambda k: self.image[:, :, k].T, self)).run()


def _volume(masks: Masks) -> np.ndarray:
    out = np.zeros(SHAPE, bool)
    for k, mask in masks.items():
        out[:, :, k] = mask.T
    return out


def _dice(masks: Masks, truth: np.ndarray) -> float:
    return Overlap.of(_volume(masks), truth).dice()


def test_a_flat_box_fills_the_object_to_its_ends() -> None:
    truth = _ball()
    seer = Seer(truth)
    found = seer.run(Prompt(Box((16, 44), (14, 42), (16, 16))))
    ks = np.flatnonzero(truth.any(axis=(0, 1)))
    assert min(found) in (ks[0], ks[0] + 1)
    assert max(found) in (ks[-1], ks[-1] - 1)
    assert _dice(found, truth) > 0.98
    assert min(k for k, _ in seer.asked) >= ks[0] - 1  # one slice beyond the end is tried, no more
    assert [k for k, prompt in seer.asked if prompt.neighbour is None] == [16]
    for _, prompt in seer.asked:  # all others see their neighbour, whose box bounds them
        if prompt.neighbour is not None:
            assert prompt.loose and prompt.box == slice_box(prompt.neighbour.mask)


def test_a_click_bounds_no_other_slice() -> None:
    seer = Seer(_ball())
    seer.run(Prompt(foreground=((30, 28, 10),)))
    assert len(seer.asked) > 10 and all(prompt.box is None for _, prompt in seer.asked)


def test_masks_are_told_as_soon_as_they_are_found() -> None:
    truth = _ball()
    told: Masks = {}
    asked: list[int] = []

    def tell(k: int, mask: np.ndarray) -> None:
        told[k] = mask
        asked.append(len(seer.asked))

    def start(walk: NeighbourWalk) -> NeighbourWalk:
        return replace(walk, found=tell)

    for prompt in (Prompt(Box((16, 44), (14, 42), (16, 16))), Prompt(Box((16, 44), (14, 42), (4, 28)))):
        told.clear()
        asked.clear()
        seer = Seer(truth)
        found = seer.run(prompt, start)
        assert {k: mask.tolist() for k, mask in told.items()} == {k: m.tolist() for k, m in found.items()}
        assert asked == sorted(asked)
        assert asked[0] < asked[-1]  # not all at the end
    told.clear()
    seer = Seer(truth, np.zeros_like(truth))
    corrected = seer.run(Prompt(foreground=((43, 28, 16),), mask=ndimage.binary_erosion(truth)), start)
    assert set(told) <= set(corrected)
    assert 16 in told
    assert all((corrected[k] == mask).all() for k, mask in told.items())


def test_a_box_over_slices_says_where_the_object_begins_and_ends() -> None:
    truth = np.repeat(_ball()[:, :, 16:17], SHAPE[2], axis=2)
    seer = Seer(truth)
    found = seer.run(Prompt(Box((16, 44), (14, 42), (5, 20))))
    assert sorted(found) == list(range(5, 21))
    assert all(prompt.loose for _, prompt in seer.asked if prompt.box is not None)


def test_a_box_over_slices_bounds_the_object_and_need_not_be_filled() -> None:
    truth = _ball()
    wide = ndimage.binary_dilation(truth, iterations=6)
    found = Seer(truth, wide).run(Prompt(Box((16, 44), (14, 42), (3, 29))))
    for mask in found.values():
        y, x = np.nonzero(mask)
        assert x.min() >= 15
        assert x.max() <= 45
        assert y.min() >= 13
        assert y.max() <= 43
    small = found[4]
    assert small.sum() < found[16].sum()


def test_a_box_over_slices_is_not_begun_on_a_slice_that_it_fills_wrongly() -> None:
    truth = _ball()
    seen = truth.copy()
    seen[16:44, 14:42, 10] = True  # a quarter of the way, all of the box is taken for the object
    seer = Seer(truth, seen)
    seer.quality = {10: 0.3}
    seer.run(Prompt(Box((16, 44), (14, 42), (3, 30))))
    alone = [k for k, prompt in seer.asked if prompt.neighbour is None]
    assert 10 in alone
    assert any(
        k == 10 and prompt.neighbour is not None for k, prompt in seer.asked
    )  # reached from another slice


def test_gaps_in_a_box_over_slices_are_crossed() -> None:
    truth = np.repeat(_ball()[:, :, 16:17], SHAPE[2], axis=2)
    seen = truth.copy()
    seen[:, :, 12:14] = False
    found = Seer(truth, seen).run(Prompt(Box((16, 44), (14, 42), (5, 25))))
    assert set(range(5, 26)) - set(found) == {12, 13}
    # without an end that was said, the first gap is the end
    found = Seer(truth, seen).run(Prompt(Box((16, 44), (14, 42), (20, 20))))
    assert min(found) == 14


def test_a_click_on_another_slice_is_reached_with_its_neighbour() -> None:
    truth = _ball()
    seer = Seer(truth)
    seer.run(Prompt(foreground=((30, 28, 16), (30, 28, 20))))
    told = [prompt for k, prompt in seer.asked if k == 20 and prompt.neighbour is not None]
    assert told
    assert told[0].labels.tolist() == [1]


def test_background_clicks_reach_their_slice() -> None:
    truth = _ball()
    seen = truth.copy()
    seen[:, :, 18] |= _ball(5, (46, 28, 18))[:, :, 18]  # leaks to the right
    found = Seer(truth, seen).run(Prompt(foreground=((30, 28, 16),), background=((47, 28, 18),)))
    assert not found[18][28, 47]


def test_parts_that_are_not_connected_are_left_out_unless_clicked() -> None:
    truth = _ball()
    seen = truth | _ball(5, (54, 50, 16))
    prompt = Prompt(foreground=((30, 28, 16),))
    assert not Seer(truth, seen).run(prompt)[16][50, 54]
    assert Seer(seen, seen).run(Prompt(foreground=((30, 28, 16), (54, 50, 16))))[16][50, 54]
    kept = Seer(truth, seen).run(
        prompt, lambda w: NeighbourWalk(w.prompt, w.depth, w.image, w.predict, clean=False)
    )
    assert kept[16][50, 54]


@pytest.mark.parametrize("depth", [1, 2])
def test_volumes_of_one_or_two_slices(depth: int) -> None:
    truth = _ball()[:, :, 16 : 16 + depth]
    walk = NeighbourWalk(
        Prompt(Box((16, 44), (14, 42), (0, 0))),
        depth,
        lambda k: truth[:, :, k].T * np.uint8(99),
        lambda k, _: (truth[:, :, k].T, 1.0),
    )
    assert sorted(walk.run()) == list(range(depth))


def test_nothing_found_on_the_prompted_slice_gives_nothing() -> None:
    truth = _ball()
    assert Seer(truth, np.zeros_like(truth)).run(Prompt(Box((16, 44), (14, 42), (16, 16)))) == {}
    assert Seer(truth, np.zeros_like(truth)).run(Prompt(Box((16, 44), (14, 42), (8, 20)))) == {}


def test_a_correction_changes_what_is_near_and_nothing_far_away() -> None:
    truth = np.repeat(_ball()[:, :, 16:17], SHAPE[2], axis=2)
    leak = np.zeros_like(truth)
    leak[44:52, 24:32, 14:19] = True  # over five slices
    former = truth | leak
    former[:20, 20:24, 28] = True  # a blemish far away, accepted by the user
    fixed = Seer(truth).run(Prompt(mask=former, background=((47, 28, 16),)))
    after = _volume(fixed)
    assert not (after & leak).any()
    assert (after[:, :, :10] == former[:, :, :10]).all()
    assert (after[:, :, 25:] == former[:, :, 25:]).all()


def test_a_click_behind_the_end_cuts_off_what_was_found_there() -> None:
    truth = _ball()
    former = np.repeat(truth[:, :, 16:17], SHAPE[2], axis=2)
    former[:, :, : truth.any((0, 1)).argmax()] = False
    empty = np.zeros_like(truth)
    prompt = Prompt(foreground=((30, 28, 16),), background=((30, 28, 29),), mask=former)
    seer = Seer(truth, empty)
    seer.truth = empty
    cut = seer.run(prompt)
    assert max(cut) < 29  # nothing behind the click
    assert all((cut[k] == former[:, :, k].T).all() for k in range(3, 17))  # nor less of the object shown
    # without anything that was shown, as much goes on both sides
    unknown = seer.run(Prompt(background=((30, 28, 29),), mask=former))
    assert max(unknown) < 29


def test_a_click_beyond_the_end_grows_the_object_there() -> None:
    truth = _ball()
    former = truth.copy()
    former[:, :, 22:] = False
    found = Seer(truth).run(Prompt(mask=former, foreground=((30, 28, 24),)))
    assert _dice(found, truth) > _dice({k: former[:, :, k].T for k in range(SHAPE[2])}, truth)
    assert 24 in found
    assert 23 in found


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 10_000))
def test_corrections_never_lower_dice_by_more_than_a_hundredth(seed: int) -> None:
    """With a model that is right where it is told and repeats its error where it is not."""
    rng = np.random.default_rng(seed)
    truth = _ball(float(rng.uniform(9, 14)))
    seen = truth.copy()
    for _ in range(3):
        at = np.argwhere(ndimage.binary_dilation(truth, iterations=3))
        blob = _ball(float(rng.uniform(3, 6)), tuple(int(v) for v in at[rng.integers(len(at))]))  # type: ignore[arg-type]
        seen = seen | blob if rng.random() < 0.5 else seen & ~blob
    seer = Seer(truth, seen)
    masks = seer.run(Prompt(Box((14, 46), (12, 44), (16, 16))))
    said: dict[int, list[tuple[int, int, int]]] = {0: [], 1: []}
    before = _dice(masks, truth)
    for _ in range(4):
        volume = _volume(masks)
        wrong = volume ^ truth
        if not wrong.any():
            break
        depth = ndimage.distance_transform_edt(wrong)
        i, j, k = (int(v) for v in np.unravel_index(int(depth.argmax()), SHAPE))
        said[int(truth[i, j, k])].append((i, j, k))
        masks = seer.run(Prompt(foreground=tuple(said[1]), background=tuple(said[0]), mask=volume))
        after = _dice(masks, truth)
        assert after >= before - 0.01
        before = after


def test_a_click_changes_as_much_as_its_distance_from_the_edge_tells() -> None:
    old = _ball()[:, :, 16].T
    truth = _ball(12)[:, :, 16].T
    ring = old & ~truth
    click = SlicePrompt(
        points=np.array([[30, 15]], np.float32), labels=np.array([0]), mask=old
    )  # one px inside
    emptied = near_clicks(old, np.zeros_like(old), click)
    assert not emptied[15, 30]
    assert (old & ~emptied)[truth].sum() < 0.1 * truth.sum()  # only a piece along the edge goes
    assert (old & ~emptied).sum() < ring.sum()
    right = SlicePrompt(points=np.array([[30, 28]], np.float32), labels=np.array([1]), mask=old)
    assert (near_clicks(old, np.zeros_like(old), right) == old).all()


def test_a_click_far_from_the_edge_may_change_the_whole() -> None:
    old = _ball()[:, :, 16].T
    click = SlicePrompt(points=np.array([[30, 28]], np.float32), labels=np.array([0]), mask=old)
    assert not near_clicks(old, np.zeros_like(old), click).any()
