"""Scores of whole images: surfaces in 3-D with the spacing of the volume, and counts of every voxel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from segmed.data.slices import LabelledSlice, LabelledVolume, SliceDataset
from segmed.evaluation.segmentation_scores import ImageScore, score_mask
from segmed.evaluation.whole_scores import WholeScores

SHAPE = (6, 24, 20)  # k, rows, columns
SPACING = (0.5, 1.0, 3.0)  # i, j, k


def _data(*ks: tuple[int, int]) -> SliceDataset:
    volume = LabelledVolume("ann", Path("a"), Path("b"), slices=SHAPE[0], spacing=SPACING)
    return SliceDataset([volume, replace(volume, patient="ben")], {1: "liver", 2: "spleen"}, slices=ks)


def _block(rows: slice, columns: slice, places: slice) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[places, rows, columns] = True
    return mask


TRUTH = _block(slice(4, 14), slice(3, 15), slice(1, 5))
FOUND = _block(slice(6, 14), slice(3, 13), slice(0, 4))


def _scored(data: SliceDataset, found: np.ndarray, truth: np.ndarray) -> list[ImageScore]:
    whole = WholeScores(data)
    for number, (volume, k) in enumerate(data.slices):
        labels = truth[k].astype(np.uint8)
        sample = LabelledSlice(labels, labels, data.volumes[volume].patient, SPACING[1::-1])
        whole.add(number, sample, {1: found[k], 2: np.zeros_like(found[k])})
    return whole.finish()


def test_a_volume_is_compared_in_3d() -> None:
    liver, spleen = _scored(_data(*((0, k) for k in range(6))), FOUND, TRUTH)
    expected = score_mask(FOUND, TRUTH, (3.0, 1.0, 0.5), "ann", 1)
    assert liver.overlap == expected.overlap
    assert (liver.hd95, liver.nsd) == pytest.approx((expected.hd95, expected.nsd))
    assert liver.hd95 > 3, "a slice too far along k"
    flat = [score_mask(FOUND[k], TRUTH[k], (1.0, 0.5)).hd95 for k in range(1, 4)]
    assert max(flat) < 2.5, "the slices alone do not tell"
    assert (spleen.overlap.tp, spleen.overlap.tn, spleen.label) == (0, TRUTH.size, 2)


def test_slices_that_are_left_out_are_a_gap() -> None:
    score = _scored(_data((0, 0), (0, 2), (0, 4)), FOUND, TRUTH)[0]
    expected = score_mask(FOUND[::2], TRUTH[::2], (6.0, 1.0, 0.5))
    assert score.hd95 == pytest.approx(expected.hd95)
    assert score.hd95 > 6


def test_single_pictures_are_compared_in_2d() -> None:
    one, _, other, _ = _scored(_data((0, 2), (1, 3)), FOUND, TRUTH)
    expected = score_mask(FOUND[2], TRUTH[2], (1.0, 0.5))
    assert (one.patient, other.patient) == ("ann", "ben")
    assert one.overlap == expected.overlap
    assert (one.hd95, one.nsd) == pytest.approx((expected.hd95, expected.nsd))
