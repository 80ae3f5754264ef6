"""What is read out of label maps, and how far a model follows them."""

from __future__ import annotations

import math
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from segmed.active.review.model_agreement import followed
from segmed.active.review.submission import (
    LabelMap,
    named_dice,
    names_of,
    names_of_file,
    object_places,
    object_slices,
    read_submission,
    whole_labels,
)
from segmed.data.checksums import file_checksum
from segmed.imaging.labels.segments import StoredSegment
from segmed.imaging.labels.sidecar import write_sidecar
from segmed.imaging.picture import Picture
from segmed.imaging.store import ByteBoundedStore
from segmed.inference.predictor import Predictor
from segmed.methods.classical import Classical


@pytest.mark.parametrize(
    ("info", "names"),
    [
        ({"label_info": [{"name": "spleen", "idx": 7}, {"name": " liver "}]}, {1: "spleen", 2: "liver"}),
        ({"params": {"label_names": {"liver": 1, "spleen": 2}}}, {1: "liver", 2: "spleen"}),
        ({}, {4: "kidney"}),
        ({"label_info": 5}, {4: "kidney"}),
        ({"label_info": [{}], "params": "?"}, {4: "kidney"}),
        ({"params": {"label_names": ["liver"]}}, {4: "kidney"}),
    ],
)
def test_names_are_those_that_were_sent(info: dict[str, object], names: dict[int, str]) -> None:
    assert names_of(info, {"kidney": 4}) == names


@pytest.mark.parametrize(
    ("entries", "values", "names"),
    [
        ([("spleen", 2), ("kidney", 5)], {2, 5}, {2: "spleen", 5: "kidney"}),
        ([("spleen", 2), ("kidney", 5)], {0, 5}, {2: "spleen", 5: "kidney"}),  # 5 is no second one
        ([("spleen", 2), ("liver", 1)], {1, 2}, {1: "liver", 2: "spleen"}),
        ([("spleen", 2), ("liver", 1)], {1}, {1: "liver", 2: "spleen"}),  # 3D Slicer's numbers rise
        ([("liver", 1), ("spleen", 3), ("kidney", 6)], {1, 2, 3}, {1: "liver", 2: "spleen", 3: "kidney"}),
        ([("liver", 1), ("spleen", 3)], {2}, {1: "liver", 2: "spleen"}),  # the first one is empty
        ([("liver", 1), ("spleen", 3)], set(), {1: "liver", 2: "spleen"}),
        ([("liver", 1), ("spleen", 1)], {1, 2}, {1: "liver", 2: "spleen"}),
        ([("liver", "1"), ("spleen", None)], {1, 2}, {1: "liver", 2: "spleen"}),
        ([("background", 0), ("liver", 1)], {1}, {1: "liver"}),
        ([("a", 9), ("b", 8)], {1, 2}, {1: "a", 2: "b"}),
        ([("kidney", 1)], {0, 255}, {255: "kidney"}),
        ([("a", 1), ("b", 2)], {6, 5}, {5: "a", 6: "b"}),
        ([("a", 1), ("b", 2)], {5, 6, 7}, {1: "a", 2: "b"}),
    ],
)
def test_numbers_count_where_the_values_are_those_numbers(
    entries: list[tuple[str, object]], values: set[int], names: dict[int, str]
) -> None:
    info = {"label_info": [{"name": name, "idx": idx} for name, idx in entries]}
    assert names_of(info, {"kidney": 4}, values) == names


def test_what_the_server_has_noted_counts_first(tmp_path: Path) -> None:
    info = {"segments": [{"value": 7, "name": "liver"}], "label_info": [{"name": "spleen", "idx": 1}]}
    assert names_of(info, {"kidney": 4}) == {7: "liver"}
    labels = _save(tmp_path / "a.nii.gz", np.ones((3, 3, 3), np.uint8))
    assert names_of_file(labels, {}, {"kidney": 4}) == {4: "kidney"}
    write_sidecar([StoredSegment("liver", 1)], labels)  # a label map that was copied with its table
    assert names_of_file(labels, {}, {"kidney": 4}) == {1: "liver"}
    assert names_of_file(labels, info, {"kidney": 4}) == {7: "liver"}


def test_two_segments_of_one_name_are_counted_together(tmp_path: Path) -> None:
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[0], labels[1:3] = 1, 2
    found = read_submission(LabelMap(_save(tmp_path / "a.nii.gz", labels), {1: "lesion", 2: "lesion"}))
    assert found.sizes == {"lesion": 48}


def _save(path: Path, labels: np.ndarray, offset: float = 0.0) -> Path:
    affine = np.diag([2.0, 2.0, 5.0, 1.0])
    affine[0, 3] = offset
    nib.save(nib.Nifti1Image(labels, affine), path)
    return path


def test_a_submission_is_compared_by_name(tmp_path: Path) -> None:
    final = np.zeros((8, 6, 4), np.uint8)
    final[:4, :2], final[5:, 3:] = 1, 2  # liver, spleen
    proposed = np.zeros_like(final)
    proposed[5:, 3:], proposed[:2, :2], proposed[4, 0, 0] = 1, 2, 9  # spleen, liver, something else
    files = [_save(tmp_path / f"{n}.nii.gz", a) for n, a in enumerate((final, proposed))]
    found = read_submission(
        LabelMap(files[0], {1: "liver", 2: "spleen"}), LabelMap(files[1], {1: "spleen", 2: "liver"})
    )
    assert found.sizes == {"liver": 32, "spleen": 36}
    assert found.checksum == file_checksum(files[0])
    assert found.agreement == pytest.approx({"liver": 2 / 3, "spleen": 1.0, "label 9": 0.0})


def test_a_proposal_that_lies_elsewhere_says_nothing(tmp_path: Path) -> None:
    final = LabelMap(_save(tmp_path / "final.nii.gz", np.ones((4, 4, 2), np.uint8)), {})
    other = LabelMap(_save(tmp_path / "other.nii.gz", np.ones((4, 4, 3), np.uint8)), {})
    assert read_submission(final, other).agreement is None
    assert read_submission(final, LabelMap(tmp_path / "gone.nii.gz", {})).agreement is None
    assert read_submission(final).sizes == {"label 1": 32}
    assert (
        read_submission(LabelMap(_save(tmp_path / "empty.nii.gz", np.zeros((4, 4, 2), np.uint8)), {})).sizes
        == {}
    )


def test_numbers_that_are_no_labels() -> None:
    assert whole_labels(np.array([0.0, 2.0])).tolist() == [0, 2]
    for wrong in ([0.5], [-1], [70000]):
        with pytest.raises(ValueError, match="allowed are whole numbers from 0 to 65535"):
            whole_labels(np.array(wrong))


def test_two_empty_maps_have_no_structures() -> None:
    empty = np.zeros((2, 2, 1), np.uint8)
    assert named_dice(empty, {1: "a"}, empty, {1: "a"}) == {}


def test_places_are_middles() -> None:
    labels = np.zeros((10, 20, 6), np.uint8)
    labels[2:4, 10:14, 1:5] = 3
    assert object_slices(labels == 3, 2) == [2, 4]
    assert object_places(labels).tolist() == [[0.3, 0.6]] * 2
    assert object_places(np.zeros((4, 4, 1), np.uint8)).shape == (0, 2)


def _bright(shape: tuple[int, int, int]) -> tuple[Picture, np.ndarray]:
    labels = np.zeros(shape, np.uint8)
    labels[10:30, 12:28, 1:4] = 1
    grey = np.where(labels, 200, 40).astype(np.uint8) + np.random.default_rng(0).integers(
        0, 9, shape, np.uint8
    )
    return Picture(grey, np.eye(4), "key", "minmax"), labels


def test_a_model_follows_what_it_sees_and_not_noise() -> None:
    picture, labels = _bright((48, 40, 5))
    predictor = Predictor(Classical(), ByteBoundedStore(0))
    assert followed(predictor, picture, labels) > 0.95
    noise = (np.random.default_rng(1).random(labels.shape) < 0.05).astype(np.uint8)
    assert followed(predictor, picture, noise) < 0.3
    assert math.isnan(followed(predictor, picture, np.zeros_like(labels)))
    line = np.zeros_like(labels)
    line[5, 3:20, 2] = 1
    assert math.isnan(followed(predictor, picture, line))
    with pytest.raises(ValueError, match="does not lie on the image"):
        followed(predictor, picture, labels[:-1])


def test_nan_around_the_structures_of_a_label_map_is_background(tmp_path: Path) -> None:
    labels = np.full((5, 4, 3), np.nan, np.float32)
    labels[1, 1], labels[2, 2, 2] = 1, 2
    nib.save(nib.Nifti1Image(labels, np.eye(4)), tmp_path / "label.nii.gz")
    found = read_submission(LabelMap(tmp_path / "label.nii.gz", {1: "liver", 2: "spleen"}))
    assert found.sizes == {"liver": 3, "spleen": 1}
