"""Boxes, clicks and corrections in phantom volumes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from segmed.data.phantom import Phantom
from segmed.evaluation.cases import Case, volume_objects
from segmed.evaluation.volume_trials import (
    CLICK,
    FLAT,
    THICK,
    correction_columns,
    keeps_its_promise,
    largest_loss,
    volume_numbers,
    volume_trials,
)
from segmed.imaging.intensity import to_uint8
from segmed.imaging.picture import Picture
from segmed.imaging.prompts import Prompt
from segmed.imaging.store import ByteBoundedStore
from segmed.imaging.volume import Volume
from segmed.inference.predictor import Masks, Predictor
from segmed.simulation.volume_annotator import (
    box_over_slices,
    flat_box,
    largest_error,
    largest_slice,
    middle_click,
    with_correction,
)

SPACING = (1.0, 1.0, 3.0)


@pytest.fixture(scope="module")
def case(phantom: Phantom) -> Case:
    picture = Picture(
        to_uint8(Volume(phantom.image, phantom.affine, "CT")), phantom.affine, "phantom", "ct-soft-tissue"
    )
    return Case("phantom", "ct", "phantom", picture, phantom.labels, False, phantom.names)


def _ball(at: tuple[int, int, int], radius: float, shape: tuple[int, int, int] = (40, 36, 12)) -> np.ndarray:
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1)
    return np.asarray((((grid - at) * SPACING) ** 2).sum(-1) <= radius**2)


class Replies(Predictor):
    """Answers with given masks (I, J, K) in turn, the last one for ever, and keeps what it was asked."""

    def __init__(self, answers: list[np.ndarray]) -> None:
        self.answers, self.asked = answers, list[Prompt]()

    def segment_volume(self, picture: Picture, prompt: Prompt, *more: object) -> Masks:  # type: ignore[override]
        mask = self.answers[min(len(self.asked), len(self.answers) - 1)]
        self.asked.append(prompt)
        return {k: mask[:, :, k].T for k in range(mask.shape[2]) if mask[:, :, k].any()}


def _picture(shape: tuple[int, int, int] = (40, 36, 12)) -> Picture:
    return Picture(np.zeros(shape, np.uint8), np.diag([*SPACING, 1.0]), "x", "auto")


def test_objects_of_a_volume(case: Case, phantom: Phantom) -> None:
    found = list(volume_objects(case))
    assert {o.label for o in found} <= {int(v) for v in np.unique(phantom.labels) if v}
    assert len(found) >= 3
    for item in found:
        assert item.kind == phantom.names[item.label]
        assert (item.mask == (phantom.labels == item.label)).all()
    largest = max(int(o.mask.sum()) for o in found)
    assert [o.mask.sum() for o in volume_objects(case, min_voxels=largest)] == [largest]
    assert list(volume_objects(case, min_slices=99)) == []
    assert [o.label for o in volume_objects(case, limit=2)] == [found[0].label, found[-1].label]


def test_parts_of_a_label_are_objects_where_a_case_has_many() -> None:
    labels = np.where(_ball((10, 10, 5), 8), 7, np.where(_ball((30, 25, 6), 7), 7, 0)).astype(np.uint8)
    many = Case("cells", "lm", "x", _picture(), labels, True)
    parts = list(volume_objects(many))
    assert len(parts) == 2 and {p.label for p in parts} == {7}
    assert (parts[0].mask | parts[1].mask == (labels == 7)).all()
    assert len(list(volume_objects(replace(many, has_many=False)))) == 1


def test_prompts_of_an_object() -> None:
    truth = _ball((20, 15, 6), 10)
    assert largest_slice(truth) == 6
    flat, thick = flat_box(truth), box_over_slices(truth)
    assert (flat.i, flat.j, flat.k) == ((10, 30), (5, 25), (6, 6))
    assert (thick.i, thick.j, thick.k) == ((10, 30), (5, 25), (3, 9))
    assert middle_click(truth) == (20, 15, 6)


def test_a_click_goes_to_the_deepest_place_of_the_largest_error() -> None:
    truth = _ball((20, 15, 6), 10)
    cut = truth.copy()
    cut[:, :, 8:] = False  # misses the upper end
    (i, j, k), missed = largest_error(cut, truth, SPACING) or ((0, 0, 0), False)
    assert missed and k in (8, 9) and truth[i, j, k] and not cut[i, j, k]
    assert abs(i - 20) <= 2 and abs(j - 15) <= 2
    leak = cut | _ball((31, 30, 4), 14)  # and leaks more than it misses
    (i, j, k), missed = largest_error(leak, truth, SPACING) or ((0, 0, 0), True)
    assert not missed and leak[i, j, k] and not truth[i, j, k]
    assert largest_error(truth, truth, SPACING) is None
    everything = np.zeros_like(truth)
    assert largest_error(everything, truth, SPACING) == ((20, 15, 6), True)


def test_corrections_add_up_and_send_the_mask_only_if_told_to() -> None:
    truth = _ball((20, 15, 6), 10)
    cut, leak = truth & (np.arange(12) < 8), truth | _ball((31, 30, 4), 14)
    start = Prompt(flat_box(truth))
    first = with_correction(start, cut, truth, SPACING)
    assert (first.box, len(first.foreground), first.background, first.mask) == (start.box, 1, (), None)
    second = with_correction(first, leak, truth, SPACING)
    assert second.foreground == first.foreground and len(second.background) == 1
    with_mask = with_correction(first, leak, truth, SPACING, send_mask=True)
    assert with_mask.mask is not None and (with_mask.mask == leak).all()
    assert with_correction(second, truth, truth, SPACING) is second


def test_trials_ask_what_they_say_and_stop_when_nothing_is_wrong() -> None:
    truth = _ball((20, 15, 6), 10)
    cut = truth & (np.arange(12) < 8)
    predictor = Replies([cut, cut, truth, cut])
    trials = {t.column: t for t in volume_trials(predictor, _picture(), truth, corrections=4)}
    assert [*trials] == [FLAT, *correction_columns(4), THICK, CLICK]
    assert correction_columns(2) == ["1 correction", "2 corrections"]
    assert len(predictor.asked) == 5  # not after the second correction, which was right
    assert [len(p.foreground) for p in predictor.asked] == [
        0,
        1,
        1,
        0,
        1,
    ]  # the same click twice is one click
    assert predictor.asked[3].box == box_over_slices(truth)
    assert predictor.asked[4].box is None and predictor.asked[4].foreground == (middle_click(truth),)
    assert (trials["4 corrections"].mask == truth).all() and trials["4 corrections"].seconds == 0
    only = [t.column for t in volume_trials(Replies([truth]), _picture(), truth, [CLICK], corrections=0)]
    assert only == [CLICK]


def test_numbers_and_the_largest_loss() -> None:
    truth = _ball((20, 15, 6), 10)
    cut = truth & (np.arange(12) < 8)
    values: dict[str, float] = {}
    for trial in volume_trials(
        Replies([truth & (np.arange(12) < 9), cut, truth]), _picture(), truth, [FLAT], 2
    ):
        values |= volume_numbers(trial, truth, np.diag([*SPACING, 1.0]), 2.0)
    assert values["2 corrections"] == values["2 corrections NSD"] == 1.0
    assert 0 < values["1 correction NSD"] < 1 and values[f"{FLAT} s"] >= 0
    loss = largest_loss(values, 2)
    assert loss == pytest.approx(values[FLAT] - values["1 correction"])
    assert loss > 0.01 and not keeps_its_promise(loss)
    assert largest_loss({FLAT: 0.5, "1 correction": 0.6}, 1) == 0.0
    assert keeps_its_promise(0.01)


def test_a_phantom_through_a_method(case: Case) -> None:
    from segmed.methods.classical import Classical

    item = max(volume_objects(case), key=lambda o: int(o.mask.sum()))
    predictor = Predictor(Classical(), ByteBoundedStore(2**28))
    values: dict[str, float] = {}
    for trial in volume_trials(predictor, case.picture, item.mask, corrections=1):
        values |= volume_numbers(trial, item.mask, case.picture.affine, 4.0)
    assert values[FLAT] > 0.5 and values[THICK] > 0.5
    assert all(0 <= values[f"{c} NSD"] <= 1 for c in (FLAT, THICK, CLICK, "1 correction"))
