"""Public layouts, written out small by the tests, and splits by patient."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from segmed.data.datasets.lgg import load_lgg
from segmed.data.datasets.msd import load_msd
from segmed.data.slices import SliceDataset
from segmed.data.split import Split, split_patients
from segmed.imaging.store import ByteBoundedStore
from torch.utils.data import DataLoader

SHARED = Path(__file__).resolve().parents[3] / "shared" / "datasets"
NUMBERS = (10, 9, 2)


def _lgg(root: Path, size: tuple[int, int] = (12, 10)) -> Path:
    """Two patients, three slices each, whose first pixel is their number; no object on slice 9."""
    folder = root / "kaggle_3m"
    for patient in ("TCGA_CS_0002_1", "TCGA_CS_0001_1"):
        (folder / patient).mkdir(parents=True)
        for number in NUMBERS:
            image = np.random.default_rng(number).integers(0, 255, (*size, 3), np.uint8)
            image[0, 0] = number, 100 + number, 200 + number
            mask = np.zeros(size, np.uint8)
            mask[3:6, 2:9] = 0 if number == 9 else 255
            Image.fromarray(image).save(folder / patient / f"{patient}_{number}.tif")
            Image.fromarray(mask).save(folder / patient / f"{patient}_{number}_mask.tif")
    (folder / "data.csv").write_text("Patient\n")
    return folder


def _msd(root: Path, count: int = 3, label_shape: tuple[int, int, int] = (9, 7, 5)) -> Path:
    """Volumes of 9×7×5 voxels of 2×3×4 mm; label 1 on slice 1, both labels on slice 2."""
    for part in ("imagesTr", "labelsTr"):
        (root / part).mkdir(parents=True)
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    pairs = []
    for n in range(count):
        grey = np.random.default_rng(n).uniform(1, 1000, (9, 7, 5)).astype(np.float32)
        labels = np.zeros(label_shape, np.uint8)
        labels[1:4, 2:4, 1] = 1
        labels[1:6, 2:5, 2] = 1
        labels[4:8, 1:3, 2] = 2
        name = f"hippocampus_{n:03d}.nii.gz"
        nib.save(nib.Nifti1Image(grey, affine), root / "imagesTr" / name)
        nib.save(nib.Nifti1Image(labels, affine), root / "labelsTr" / name)
        pairs.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    facts = {"labels": {"0": "background", "1": "Anterior", "2": "Posterior"}, "training": pairs}
    (root / "dataset.json").write_text(json.dumps(facts))
    (root / "imagesTr" / "._hippocampus_000.nii.gz").write_bytes(b"left behind by an archive")
    return root


def test_lgg_slices_come_by_patient_and_number(tmp_path: Path) -> None:
    folder = _lgg(tmp_path)
    data = load_lgg(tmp_path)
    assert data.patients == ["TCGA_CS_0001_1", "TCGA_CS_0002_1"]
    assert [int(data[n].image[0, 0, 0]) for n in range(len(data))] == [2, 9, 10, 2, 9, 10]
    sample = data[0]
    name = folder / sample.patient / f"{sample.patient}_2"
    assert np.array_equal(sample.image, np.asarray(Image.open(f"{name}.tif")))
    assert np.array_equal(sample.labels, np.asarray(Image.open(f"{name}_mask.tif")) // 255)
    assert (data.unit, sample.spacing, data.classes) == ("px", (1.0, 1.0), {1: "FLAIR abnormality"})
    assert len(load_lgg(folder)) == 6


def test_lgg_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="Give the folder kaggle_3m"):
        load_lgg(tmp_path / "elsewhere")
    folder = _lgg(tmp_path)
    mask = folder / "TCGA_CS_0001_1" / "TCGA_CS_0001_1_9_mask.tif"
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(mask)
    data = load_lgg(folder)
    assert len(data) == 5
    assert [item.file.name for item in data.skipped] == ["TCGA_CS_0001_1_9.tif"]
    assert re.search(r"\(10, 12, 1\).*\(5, 5, 1\).*Fetch both again", data.skipped[0].reason)
    mask.unlink()
    with pytest.raises(FileNotFoundError, match=r"TCGA_CS_0001_1_9_mask\.tif"):
        load_lgg(folder)


def test_msd_slices_lie_along_the_last_axis(tmp_path: Path) -> None:
    data = load_msd(_msd(tmp_path))
    assert len(data) == 15
    assert data.patients == ["hippocampus_000", "hippocampus_001", "hippocampus_002"]
    assert data.classes == {1: "Anterior", 2: "Posterior"}
    sample = data[5 + 2]
    grey = np.asarray(nib.load(tmp_path / "imagesTr" / "hippocampus_001.nii.gz").dataobj)[:, :, 2].T
    labels = np.asarray(nib.load(tmp_path / "labelsTr" / "hippocampus_001.nii.gz").dataobj)[:, :, 2].T
    assert sample.patient == "hippocampus_001"
    assert sample.image.shape == (7, 9)
    assert sample.image.dtype == np.uint8
    assert np.corrcoef(sample.image.ravel(), grey.ravel())[0, 1] > 0.99
    assert np.array_equal(sample.labels, labels)
    assert sample.spacing == (3.0, 2.0)
    assert data.unit == "mm"


def test_msd_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no dataset\.json"):
        load_msd(tmp_path)
    odd = _msd(tmp_path / "odd", label_shape=(9, 7, 6))
    with pytest.raises(ValueError, match=r"\(9, 7, 5\).*\(9, 7, 6\).*take the pair out"):
        load_msd(odd)
    moved = _msd(tmp_path / "moved")
    label = moved / "labelsTr" / "hippocampus_001.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((9, 7, 5), np.uint8), np.diag([2.0, -3.0, 4.0, 1.0])), label)
    mirrored = load_msd(moved)
    assert [item.patient for item in mirrored.skipped] == ["hippocampus_001"]
    assert "affines differ" in mirrored.skipped[0].reason
    label.write_bytes(b"not gzip")
    damaged = load_msd(moved)
    assert damaged.patients == ["hippocampus_000", "hippocampus_002"]
    assert "cannot be read" in damaged.skipped[0].reason
    label.unlink()
    with pytest.raises(FileNotFoundError, match="labelsTr/hippocampus_001"):
        load_msd(moved)
    (moved / "dataset.json").write_text(
        '{"labels": {"one": "1"}, "training": [{"image": "a", "label": "b"}]}'
    )
    with pytest.raises(ValueError, match="not the list of a Decathlon task"):
        load_msd(moved)


def test_labels_without_a_name_are_refused(tmp_path: Path) -> None:
    root = _msd(tmp_path)
    facts = json.loads((root / "dataset.json").read_text())
    del facts["labels"]["2"]
    (root / "dataset.json").write_text(json.dumps(facts))
    with pytest.raises(ValueError, match="holds the label 2"):
        load_msd(root)[0]


def test_parts_of_a_dataset(tmp_path: Path) -> None:
    data = load_msd(_msd(tmp_path))
    assert len(data.with_object()) == 6
    assert len(data.with_object(min_area=7)) == 3
    assert all(item.labels.any() for item in map(data.with_object().__getitem__, range(6)))
    part = data.of(["hippocampus_002"])
    assert part.patients == ["hippocampus_002"]
    assert len(part) == 5
    assert [k for _, k in data.thinned(3).slices] == [0, 2, 4] * 3
    assert len(data.thinned(99)) == len(data)
    with pytest.raises(ValueError, match="no patient 'nobody'"):
        data.of(["nobody"])
    assert [len(batch) for batch in DataLoader(data, batch_size=4, collate_fn=list)] == [4, 4, 4, 3]


def test_memory_is_bounded(tmp_path: Path) -> None:
    loaded = load_msd(_msd(tmp_path))
    one = 2 * 9 * 7 * 5
    store: ByteBoundedStore = ByteBoundedStore(one + 10)
    data = SliceDataset(loaded.volumes, loaded.classes, store=store)
    for n in range(len(data)):
        assert np.array_equal(data[n].labels, loaded[n].labels)
        assert store.nbytes == one
    assert data.with_object()._store is store


def test_a_split_is_by_patient_and_replayable(tmp_path: Path) -> None:
    names = [f"p{n:02d}" for n in range(20)]
    split = split_patients(names, seed=3, validation=0.2, test=0.3)
    assert (len(split.train), len(split.validation), len(split.test)) == (10, 4, 6)
    assert sorted([*split.train, *split.validation, *split.test]) == names
    assert split == split_patients(names[::-1] * 2, seed=3, validation=0.2, test=0.3)
    assert split != split_patients(names, seed=4, validation=0.2, test=0.3)
    split.save(tmp_path / "split.json")
    assert Split.load(tmp_path / "split.json") == split
    assert split_patients(names, seed=0, validation=0, test=0.01).validation == ()
    assert len(split_patients(names, seed=0, validation=0, test=0.01).test) == 1


def test_splits_that_make_no_sense(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="leave a part to train on"):
        split_patients("abc", seed=0, validation=0.5, test=0.5)
    with pytest.raises(ValueError, match="2 patients are too few"):
        split_patients("ab", seed=0)
    with pytest.raises(ValueError, match="'a' is in two parts"):
        Split(("a", "b"), (), ("a",), 0)
    (tmp_path / "split.json").write_text('{"train": ["a"]}')
    with pytest.raises(ValueError, match="Remove it to split again"):
        Split.load(tmp_path / "split.json")


@pytest.mark.skipif(not SHARED.is_dir(), reason="no folder ../shared/datasets beside the checkout")
def test_the_real_sets() -> None:
    lgg = load_lgg(SHARED / "lgg")
    assert (len(lgg), len(lgg.patients)) == (1199, 80)
    sample = lgg.of(lgg.patients[:2]).with_object()[0]
    assert sample.image.shape == (256, 256, 3)
    assert set(np.unique(sample.labels)) == {0, 1}
    msd = load_msd(SHARED / "msd_hippocampus")
    assert len(msd.patients) == 156
    labelled = msd.of(msd.patients[:3]).with_object()
    assert {int(v) for n in range(len(labelled)) for v in np.unique(labelled[n].labels)} == {0, 1, 2}
    assert labelled[0].spacing == (1.0, 1.0)
