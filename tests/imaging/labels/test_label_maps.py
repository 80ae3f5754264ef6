"""Largest piece and closed holes of organs in a volume."""

from __future__ import annotations

import numpy as np
import pytest
from segmed.imaging.labels.maps import clean_labels


def volume() -> np.ndarray:
    """Organ 1 with a hole, a lesion 3 inside and a crumb; organ 2 with a bay that is open to one side."""
    labels = np.zeros((24, 20, 10), np.uint8)
    labels[2:10, 2:10, 1:9] = 1
    labels[4:6, 4:6, 4:6] = 0
    labels[7, 7, 4:6] = 3
    labels[20, 15, 8] = 1
    labels[12:20, 2:10, 1:9] = 2
    labels[14:16, 4:6, 4:10] = 0
    return labels


def test_only_the_largest_piece_stays() -> None:
    labels = volume()
    clean = clean_labels(labels, fill=False)
    assert labels[20, 15, 8] == 1
    assert clean[20, 15, 8] == 0
    assert (clean != labels).sum() == 1


def test_holes_close_and_lesions_and_bays_stay() -> None:
    labels = volume()
    clean = clean_labels(labels, largest=False)
    assert (clean[4:6, 4:6, 4:6] == 1).all()
    assert (clean[7, 7, 4:6] == 3).all()
    assert (clean != labels).sum() == 8


def test_both_and_neither() -> None:
    labels = volume()
    assert (clean_labels(labels) != labels).sum() == 9
    assert np.array_equal(clean_labels(labels, largest=False, fill=False), labels)
    assert clean_labels(labels.astype(np.int32)).dtype == np.int32


def test_voxels_that_share_a_corner_are_one_piece() -> None:
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[0, 0, 0] = labels[1, 1, 1] = labels[2, 2, 2] = 5
    assert np.array_equal(clean_labels(labels), labels)


def test_nothing_stays_nothing_and_single_slices_work() -> None:
    assert not clean_labels(np.zeros((5, 6, 1), np.uint8)).any()
    ring = np.zeros((5, 6, 1), np.uint8)
    ring[1:4, 1:5] = 2
    ring[2, 2] = 0
    assert clean_labels(ring)[2, 2, 0] == 2


@pytest.mark.parametrize("labels", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.float32)])
def test_what_is_no_label_map_is_refused(labels: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"allowed is a 3-D array of whole numbers"):
        clean_labels(labels)
