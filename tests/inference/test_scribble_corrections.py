"""Scribbles correct a mask of the default model beyond the pixels that they cover."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from segmed.evaluation.metrics import Overlap
from segmed.imaging.picture import Picture
from segmed.imaging.prompts import Prompt, SlicePrompt
from segmed.imaging.store import ByteBoundedStore
from segmed.inference.loading import BackboneConfig, Loader
from segmed.inference.predictor import Predictor
from segmed.methods.segmed.click_hypotheses import MOST_CLICKS, first_clicks

SIDE = 120


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(Loader().get("segmed", BackboneConfig()), ByteBoundedStore(2**24), batch=1)


def disc(x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return np.asarray((columns - x) ** 2 + (rows - y) ** 2 <= radius**2)


def answer(predictor: Predictor, mask: np.ndarray, strokes: np.ndarray) -> np.ndarray:
    truth = disc(60, 60, 28)
    values = np.where(truth, 170, 60) + np.random.default_rng(2).normal(0, 6, truth.shape)
    picture = Picture(values.astype(np.uint8).T[:, :, None], np.eye(4), "disc", "auto")
    prompt = Prompt(None, (), (), mask.T[:, :, None], {0: strokes})
    return predictor.segment_slices(picture, prompt)[0]


def test_a_stroke_on_the_missing_half_brings_all_of_it(predictor: Predictor) -> None:
    truth = disc(60, 60, 28)
    half = truth & (np.arange(SIDE) < 55)
    strokes = np.zeros((SIDE, SIDE), np.int8)
    strokes[50:70, 72:75] = 1
    found = answer(predictor, half, strokes)
    assert Overlap.of(half, truth).dice() < 0.7 and Overlap.of(found, truth).dice() > 0.9


def test_a_stroke_beside_the_object_removes_what_leaked(predictor: Predictor) -> None:
    truth = disc(60, 60, 28)
    leaked = truth | disc(95, 60, 16)
    strokes = np.zeros((SIDE, SIDE), np.int8)
    strokes[52:68, 97:100] = -1
    found = answer(predictor, leaked, strokes)
    assert Overlap.of(found, truth).dice() > 0.95 > Overlap.of(leaked, truth).dice()


def test_a_mask_that_agrees_with_its_strokes_stays(predictor: Predictor) -> None:
    odd = disc(50, 60, 20)
    strokes = np.zeros((SIDE, SIDE), np.int8)
    strokes[60, 45:55], strokes[5:9, 5:9] = 1, -1
    assert (answer(predictor, odd, strokes) == odd).all()


def test_a_first_mask_is_guessed_from_clicks() -> None:
    """From all of them, or from a few of clicks and strokes, the first of which lies on the object."""
    points, labels = np.array([[1, 1], [2, 2], [3, 3], [4, 4], [5, 5]], np.float32), np.array([0, 0, 1, 1, 0])
    clicks = SlicePrompt(points=points, labels=labels)
    assert first_clicks(clicks) is clicks
    strokes = np.zeros((40, 60), np.int8)
    strokes[20, 5:50], strokes[2, 5:50] = 1, -1
    guessed = first_clicks(SlicePrompt(scribbles=strokes))
    assert len(guessed.labels) == MOST_CLICKS and guessed.labels.all() and guessed.scribbles is None
    both = first_clicks(replace(clicks, scribbles=strokes))
    assert both.points.tolist() == [[3, 3], [1, 1], [2, 2]] and both.labels.tolist() == [1, 0, 0]
