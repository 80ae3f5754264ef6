"""Labelled cases as objects on slices."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from segmed.data.datasets.catalogue import load_dataset
from segmed.evaluation.cases import Case, SliceObject, chosen_cases, dataset_cases, load_cases, read_index

REAL = Path(__file__).resolve().parents[3] / "shared" / "cases"
AFFINE = np.array([[-1.0, 0, 0, 20], [0, -1.5, 0, 18], [0, 0, 4, -10], [0, 0, 0, 1]])


def _index(folder: Path, entries: list[dict[str, Any]]) -> None:
    (folder / "index.json").write_text(json.dumps(entries))


@pytest.fixture
def truth() -> np.ndarray:
    labels = np.zeros((40, 30, 6), np.uint8)
    labels[5:17, 3:13, 1:4] = 1  # 120 px on slices 1 to 3
    labels[20:34, 14:28, 2:6] = 4  # 196 px on slices 2 to 5
    labels[2, 28, 0] = 1
    return labels


@pytest.fixture
def ct_folder(tmp_path: Path, truth: np.ndarray) -> Path:
    """One CT case whose label is stored with its y axis the other way round."""
    (tmp_path / "one").mkdir()
    image = np.random.default_rng(0).integers(-1000, 1000, truth.shape).astype(np.int16)
    nib.save(nib.Nifti1Image(image, AFFINE), tmp_path / "one" / "image.nii.gz")
    flip = np.eye(4)
    flip[1, 1], flip[1, 3] = -1, truth.shape[1] - 1
    nib.save(nib.Nifti1Image(truth[:, ::-1].copy(), AFFINE @ flip), tmp_path / "one" / "label.nii.gz")
    _index(
        tmp_path,
        [{"id": "one", "modality": "ct", "image": "one/image.nii.gz", "label": "one/label.nii.gz", "x": 1}],
    )
    return tmp_path


@pytest.fixture
def cells() -> np.ndarray:
    """(H, W) values 1 to 3: two cells that touch by a corner, one apart."""
    picture = np.zeros((50, 60), np.uint8)
    picture[2:14, 3:15], picture[14:28, 15:27], picture[30:42, 40:55] = 1, 2, 3
    return picture


def _write_cells(folder: Path, cells: np.ndarray, instances: bool, modality: str = "lm") -> Case:
    Image.fromarray((cells * 60).astype(np.uint8)).save(folder / "image.png")
    Image.fromarray(((cells > 0) * 255).astype(np.uint8)).save(folder / "label.png")
    if instances:
        Image.fromarray(cells).save(folder / "label_instances.png")
    _index(
        folder,
        [{"id": "cells", "modality": modality, "image": "image.png", "label": "label.png", "source": "lab"}],
    )
    (case,) = load_cases(folder)
    return case


def test_a_label_on_another_grid_is_brought_onto_the_picture(ct_folder: Path, truth: np.ndarray) -> None:
    (case,) = load_cases(str(ct_folder))
    assert (case.name, case.modality, case.source, case.has_many) == ("one", "ct", "one", False)
    assert case.picture.shape == truth.shape
    assert np.array_equal(case.labels, truth)


def test_objects_are_per_label_and_slice(ct_folder: Path, truth: np.ndarray) -> None:
    (case,) = load_cases(ct_folder)
    objects = list(case.objects())
    assert [(o.label, o.k) for o in objects] == [(1, 1), (1, 2), (1, 3), (4, 2), (4, 3), (4, 4), (4, 5)]
    assert all(np.array_equal(o.mask, (truth[:, :, o.k] == o.label).T) for o in objects)
    assert objects[0].box == (5.0, 3.0, 16.0, 12.0)
    assert objects[-1].box == (20.0, 14.0, 33.0, 27.0)
    assert objects[0].prompt.box == objects[0].box
    assert len(objects[0].prompt.points) == 0


def test_small_objects_and_slices_can_be_left_out(ct_folder: Path) -> None:
    (case,) = load_cases(ct_folder)
    assert [(o.label, o.k) for o in case.objects(min_area=121)] == [(4, 2), (4, 3), (4, 4), (4, 5)]
    assert [(o.label, o.k) for o in case.objects(min_area=1, max_slices=2)] == [
        (1, 0),
        (1, 3),
        (4, 2),
        (4, 5),
    ]
    assert len(list(case.objects(max_slices=99))) == 7
    assert list(case.objects(min_area=1000)) == []


def test_microscopy_without_instances_gives_one_object_per_part(tmp_path: Path, cells: np.ndarray) -> None:
    case = _write_cells(tmp_path, cells, instances=False)
    assert case.has_many
    assert case.source == "lab"
    objects = list(case.objects())
    assert [o.label for o in objects] == [255, 255]  # the touching cells are one part
    assert sorted(int(o.mask.sum()) for o in objects) == [180, 312]


def test_instances_give_one_object_per_value(tmp_path: Path, cells: np.ndarray) -> None:
    case = _write_cells(tmp_path, cells, instances=True)
    assert not case.has_many
    assert [(o.label, int(o.mask.sum())) for o in case.objects()] == [(1, 144), (2, 168), (3, 180)]


def test_other_modalities_keep_their_parts_together(tmp_path: Path, cells: np.ndarray) -> None:
    case = _write_cells(tmp_path, cells, instances=False, modality="mr")
    assert not case.has_many
    assert [int(o.mask.sum()) for o in case.objects()] == [492]


def test_a_folder_without_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no index\.json\. Give a folder of labelled cases"):
        list(load_cases(tmp_path))


def test_box_of_one_pixel() -> None:
    mask = np.zeros((5, 9), bool)
    mask[3, 7] = True
    assert SliceObject(0, 1, mask).box == (7.0, 3.0, 7.0, 3.0)


def test_real_cases() -> None:
    if not (REAL / "index.json").is_file():
        pytest.skip(f"no real cases at {REAL}")
    for case in itertools.islice(load_cases(REAL), 3):
        assert case.labels.shape == case.picture.shape
        objects = list(case.objects(max_slices=2))
        assert objects
        for found in objects:
            x0, y0, x1, y1 = found.box
            assert 0 <= x0 <= x1 < case.picture.shape[0]
            assert 0 <= y0 <= y1 < case.picture.shape[1]
            assert found.mask.sum() >= 100


def test_entries_that_count_objects_give_parts_and_instances_give_values(
    tmp_path: Path, cells: np.ndarray
) -> None:
    Image.fromarray((cells * 60).astype(np.uint8)).save(tmp_path / "image.png")
    Image.fromarray(cells).save(tmp_path / "cells.png")
    Image.fromarray((cells > 0).astype(np.uint8)).save(tmp_path / "nuclei.png")
    common = {"modality": "histology", "image": "image.png", "objects": 3}
    entries = [
        common | {"id": "a", "source": "one", "label": "nuclei.png", "labels": {"1": "nuclei"}},
        common | {"id": "b", "source": "two", "label": "cells.png", "labels": "instances"},
    ]
    _index(tmp_path, entries)
    parts, values = load_cases(tmp_path)
    assert parts.has_many and parts.names == {1: "nuclei"}
    assert sorted(int(o.mask.sum()) for o in parts.objects()) == [180, 312]
    assert not values.has_many and values.names == {}
    assert [int(o.mask.sum()) for o in values.objects()] == [144, 168, 180]


def test_sources_and_limits_choose_cases(tmp_path: Path) -> None:
    common = {"modality": "ct", "image": "", "label": ""}
    entries = [common | {"id": f"{source}{n}", "source": source} for source in "ab" for n in range(5)]
    _index(tmp_path, entries)
    assert [e["id"] for e in read_index(tmp_path, limit=3)] == ["a0", "a2", "a4", "b0", "b2", "b4"]
    assert [e["id"] for e in read_index(tmp_path, ["b"], 1)] == ["b0"]
    assert len(read_index(tmp_path)) == 10
    with pytest.raises(ValueError, match=r"no source 'c'. Choose from a, b"):
        read_index(tmp_path, ["c"])


def test_cases_of_a_dataset(tmp_path: Path, truth: np.ndarray) -> None:
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for name in ("p1_a", "p1_b", "p2_a"):
        image = np.random.default_rng(0).integers(0, 1000, truth.shape).astype(np.int16)
        nib.save(nib.Nifti1Image(image, AFFINE), tmp_path / "images" / f"{name}.nii.gz")
        nib.save(nib.Nifti1Image(truth, AFFINE), tmp_path / "labels" / f"{name}.nii.gz")
    (tmp_path / "labels.json").write_text(json.dumps({"1": "liver", "4": "spleen"}))
    dataset = load_dataset("folder", tmp_path, patient="(p.)_")
    cases = list(dataset_cases(dataset, "mine"))
    assert [c.name for c in cases] == ["p1", "p1", "p2"]
    assert {(c.modality, c.source, c.names[4]) for c in cases} == {("mine", "mine", "spleen")}
    assert np.array_equal(cases[0].labels, truth)
    assert np.allclose(np.diag(cases[0].picture.affine)[:3], [1, 1.5, 4])
    assert cases[0].picture.key != cases[1].picture.key
    assert [c.name for c in dataset_cases(dataset, "mine", limit=1)] == ["p1", "p1"]
    assert "p1" not in {c.name for c in dataset_cases(dataset, "mine", without=["p1"])}
    some, count = chosen_cases(None, limit=1, data="folder", root=tmp_path)
    assert count == len(list(some))


def test_neither_folder_nor_dataset(ct_folder: Path) -> None:
    cases, count = chosen_cases(ct_folder)
    assert [c.name for c in cases] == ["one"] and count == 1
    with pytest.raises(ValueError, match="no cases"):
        chosen_cases(None)
