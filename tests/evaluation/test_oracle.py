"""The oracle chooses by the truth: numbers written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from segmed.evaluation.oracle import ORACLE_NOTE, oracle_scores, oracle_table
from segmed.evaluation.segmentation_scores import summarise


@pytest.fixture
def labels() -> np.ndarray:
    """10 × 10: class 1 in the first two rows, class 3 in the last row; 70 px of background."""
    out = np.zeros((10, 10), np.int64)
    out[:2] = 1
    out[9] = 3
    return out


def _rows(first: int, end: int) -> np.ndarray:
    out = np.zeros((10, 10), bool)
    out[first:end] = True
    return out


def test_each_class_gets_its_best_mask(labels: np.ndarray) -> None:
    proposed = [_rows(0, 1), _rows(0, 3), _rows(8, 10), _rows(2, 8)]
    scores = {s.label: s for s in oracle_scores(proposed, labels, "case")}
    assert sorted(scores) == [0, 1, 3]  # class 2 is not on the slice
    assert scores[1].overlap.dice() == pytest.approx(2 * 20 / (20 + 30))
    assert scores[3].overlap.dice() == pytest.approx(2 * 10 / (10 + 20))
    assert scores[0].overlap.dice() == pytest.approx(2 * 60 / (70 + 60))
    assert scores[0].patient == "case"
    mean = (40 / 50 + 20 / 30 + 120 / 130) / 3
    assert summarise([*scores.values()]).dice == pytest.approx(mean)
    for score in scores.values():
        dice = score.overlap.dice()
        assert score.overlap.iou() == pytest.approx(dice / (2 - dice))


def test_the_background_may_be_what_a_mask_leaves_out(labels: np.ndarray) -> None:
    proposed = [_rows(0, 2)]
    plain, with_rest = (
        {s.label: s.overlap.dice() for s in oracle_scores(proposed, labels, complement=c)}
        for c in (False, True)
    )
    assert plain == {0: 0.0, 1: 1.0, 3: 0.0}
    # 80 px are left out, 70 of them background; other classes get no complement
    assert with_rest == {0: pytest.approx(2 * 70 / (70 + 80)), 1: 1.0, 3: 0.0}


def test_no_masks_give_zero_and_not_nothing(labels: np.ndarray) -> None:
    scores = oracle_scores([], labels, complement=True)
    assert [(s.label, s.overlap.dice()) for s in scores] == [(0, 0.0), (1, 0.0), (3, 0.0)]


def test_classes_are_averaged_over_the_slices_that_show_them(labels: np.ndarray) -> None:
    other = np.where(labels == 3, 0, labels)
    scores = oracle_scores([_rows(0, 2)], labels, "a") + oracle_scores(
        [_rows(0, 1), _rows(9, 10)], other, "b"
    )
    table = oracle_table(scores, {1: "liver", 3: "spleen"})
    # liver 1 and 2·10/30, spleen on one slice only, background 0 and 2·10/(80+10)
    assert f"| liver | 2 | {(1 + 20 / 30) / 2:.4f} |" in table
    assert "| spleen | 1 | 0.0000 |" in table
    assert f"| background | 2 | {(0 + 20 / 90) / 2:.4f} |" in table
    assert f"| mean over classes | 5 | {((1 + 20 / 30) / 2 + 0 + 10 / 90) / 3:.4f} |" in table


def test_the_table_says_that_it_is_an_upper_bound(labels: np.ndarray) -> None:
    table = oracle_table(oracle_scores([_rows(0, 2)], labels), {})
    assert "Oracle Dice (upper bound)" in table.splitlines()[0]
    assert table.endswith(ORACLE_NOTE)
    assert "upper bound" in ORACLE_NOTE


def test_masks_of_another_slice_are_refused(labels: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"\(3, 3\) do not fit labels"):
        oracle_scores([np.ones((3, 3), bool)], labels)
    with pytest.raises(ValueError, match="None of 0 images"):
        oracle_table([], {})
