"""Scores of boxes, on cases that can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from segmed.evaluation.detection_scores import FoundBoxes, score_boxes


def _boxes(*rows: tuple[float, float, float, float, int, float]) -> FoundBoxes:
    table = np.array(rows, float).reshape(-1, 6)
    return FoundBoxes(table[:, :4], table[:, 4].astype(int), table[:, 5])


def test_perfect_boxes() -> None:
    truth = [_boxes((0, 0, 10, 10, 1, 1), (20, 5, 30, 18, 2, 1)), _boxes((3, 3, 9, 9, 2, 1))]
    scores = score_boxes(truth, truth, ["liver", "spleen"])
    assert (scores.map50, scores.map50_95) == (pytest.approx(1), pytest.approx(1))
    assert (scores.precision, scores.recall, scores.boxes, scores.objects) == (1, 1, 3, 3)


def test_one_hit_one_false_one_missed() -> None:
    found = [_boxes((0, 0, 10, 10, 1, 0.9), (20, 20, 30, 30, 1, 0.5)), _boxes()]
    truth = [_boxes((0, 0, 10, 10, 1, 1)), _boxes((5, 5, 9, 9, 1, 1))]
    scores = score_boxes(found, truth, ["liver"])
    assert scores.precision == scores.recall == 0.5
    assert scores.map50 == pytest.approx(51 / 101)  # of 101 points of recall, those up to one half
    assert scores.slices_without == 1


def test_an_object_is_found_once_and_by_its_class() -> None:
    truth = [_boxes((0, 0, 10, 10, 1, 1))]
    twice = [_boxes((0, 0, 10, 10, 1, 0.9), (0, 0, 10, 9, 1, 0.8))]
    assert score_boxes(twice, truth, ["liver", "spleen"]).precision == 0.5
    other = [_boxes((0, 0, 10, 10, 2, 0.9))]
    assert score_boxes(other, truth, ["liver", "spleen"]).precision == 0
    loose = [_boxes((0, 0, 10, 6, 1, 0.9))]  # IoU 0.6
    scores = score_boxes(loose, truth, ["liver", "spleen"])
    assert (
        scores.precision == 1 and scores.map50 == pytest.approx(1) and scores.map50_95 == pytest.approx(0.3)
    )


def test_averages_go_over_all_boxes_and_the_rest_over_the_sure_ones() -> None:
    truth = [_boxes((0, 0, 10, 10, 1, 1), (20, 20, 30, 30, 1, 1))]
    found = [_boxes((20, 20, 30, 30, 1, 0.1), (0, 0, 10, 10, 1, 0.9), (40, 0, 50, 9, 1, 0.3))]
    scores = score_boxes(found, truth, ["liver"], confidence=0.25)
    assert scores.map50 == score_boxes(found, truth, ["liver"]).map50 > 0.8
    assert (scores.precision, scores.recall, scores.boxes) == (0.5, 0.5, 2)
    assert score_boxes(found, truth, ["liver"], confidence=0.25, most=1).precision == 1
    assert score_boxes(found, truth, ["liver"], confidence=0.95).slices_without == 1


def test_slices_must_match() -> None:
    with pytest.raises(ValueError, match="2 slices"):
        score_boxes([_boxes(), _boxes()], [_boxes()], ["liver"])
    assert score_boxes([_boxes()], [_boxes()], ["liver"]).boxes == 0
