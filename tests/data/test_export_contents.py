"""Exports lose no case, label or structure, and refuse what nothing shows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from export_studies import PATIENTS, export_to, make_studies, truth_of
from PIL import Image
from segmed.cli import app
from segmed.data.exports.annotation_tools import import_annotations
from typer.testing import CliRunner


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_studies(tmp_path_factory.mktemp("studies"))


def _lgg(root: Path, patients: int = 2) -> np.ndarray:
    """A folder in the layout of LGG, whose masks hold 0 and 255; the mask of its slices."""
    mask = np.zeros((16, 20), np.uint8)
    mask[4:9, 6:13] = 255
    for n in range(patients):
        case = f"TCGA_XX_{n:04d}_20000101"
        (root / case).mkdir(parents=True)
        Image.fromarray(np.full((16, 20, 3), 40 + n, np.uint8)).save(root / case / f"{case}_1.tif")
        Image.fromarray(mask).save(root / case / f"{case}_1_mask.tif")
    return mask > 0


def test_masks_of_0_and_255_are_exported_as_label_1(tmp_path: Path) -> None:
    mask = _lgg(tmp_path / "lgg")
    out = export_to(tmp_path / "lgg", "nnunet", tmp_path / "Dataset501_Lgg", "--layout", "lgg")
    for path in (out / "labelsTr").iterdir():
        assert np.array_equal(np.asarray(nib.load(path).dataobj)[:, :, 0].T, mask)
    coco = export_to(tmp_path / "lgg", "coco", tmp_path / "coco", "--layout", "lgg")
    content = json.loads((coco / "annotations" / "instances_train.json").read_text())
    assert [one["category_id"] for one in content["annotations"]] == [1, 1]
    assert [one["id"] for one in content["categories"]] == [1]
    export_to(tmp_path / "lgg", "cvat", tmp_path / "cvat", "--layout", "lgg")


def _copy_studies(studies: Path, root: Path, names: list[str]) -> Path:
    """A studies folder whose images have other names."""
    (root / "labels" / "final").mkdir(parents=True)
    content = json.loads((studies / "datastore_v2.json").read_text())
    objects = {}
    for n, name in enumerate(names):
        shutil.copy(studies / f"p{n}-ct.nii.gz", root / f"{name}.nii.gz")
        shutil.copy(
            studies / "labels" / "final" / f"p{n}-ct.nii.gz", root / "labels" / "final" / f"{name}.nii.gz"
        )
        objects[name] = content["objects"][f"p{n}-ct"]
    (root / "datastore_v2.json").write_text(json.dumps({**content, "objects": objects}))
    return root


def test_cases_of_like_names_stay_apart(studies: Path, tmp_path: Path) -> None:
    names = ["ct a", "ct-a", "ct_a_0001", "CT_A_0002"]
    root = _copy_studies(studies, tmp_path / "s", names)
    out = export_to(root, "nnunet", tmp_path / "Dataset501_A")
    written = sorted(path.name.removesuffix(".nii.gz") for path in (out / "labelsTr").iterdir())
    assert written == ["CT_A_0002", "ct_a_0001", "ct_a_0003", "ct_a_0004"]
    order = {"ct_a_0003": 0, "ct_a_0004": 1, "ct_a_0001": 2, "CT_A_0002": 3}
    for name, n in order.items():
        labels = np.asarray(nib.load(out / "labelsTr" / f"{name}.nii.gz").dataobj)
        assert np.array_equal(labels, np.select([truth_of(n) == 2, truth_of(n) == 5], [1, 2]))
    refused = CliRunner().invoke(
        app, ["export", str(root), "--to", "bids", "-o", str(tmp_path / "bids"), "--patient", "(.*)"]
    )
    assert refused.exit_code == 2 and "same BIDS name" in refused.output


@pytest.mark.parametrize("tool", ["label-studio", "cvat"])
def test_a_structure_inside_another_comes_back(tool: str, studies: Path, tmp_path: Path) -> None:
    root = _copy_studies(studies, tmp_path / "s", ["a"])
    file = root / "labels" / "final" / "a.nii.gz"
    labels = np.zeros((24, 20, 3), np.uint8)
    labels[3:14, 4:15, 1] = 5
    labels[6:10, 7:11, 1] = 2  # of the lower value
    nib.save(nib.Nifti1Image(labels, nib.load(file).affine), file)
    out = export_to(root, tool, tmp_path / "out")
    annotated = out / "annotations.xml"
    if tool == "label-studio":
        annotated = tmp_path / "a.json"
        tasks = json.loads((out / "tasks.json").read_text())
        for task in tasks:
            task["annotations"] = [{"result": one["result"]} for one in task.pop("predictions")]
        annotated.write_text(json.dumps(tasks))
    import_annotations(annotated, out, tmp_path / "back")
    found = np.asarray(nib.load(tmp_path / "back" / "a.nii.gz").dataobj)
    assert (found == 1).sum() == 16 and (found == 2).sum() == 121 - 16


def test_structures_and_patients_of_a_public_layout(studies: Path, tmp_path: Path) -> None:
    source = export_to(studies, "msd", tmp_path / "msd")
    words = ("--layout", "msd", "--labels", "lesion", "--patient", "(p)")
    out = export_to(source, "nnunet", tmp_path / "Dataset501_Lesion", *words)
    assert json.loads((out / "dataset.json").read_text())["labels"] == {"background": 0, "lesion": 1}
    assert json.loads((out / "split.json").read_text())["train"] == ["p"]
    for n in range(PATIENTS):
        (path,) = (out / "labelsTr").glob(f"p{n}*")
        assert np.array_equal(np.asarray(nib.load(path).dataobj), truth_of(n) == 5)


def test_structures_that_nothing_shows(studies: Path, tmp_path: Path) -> None:
    for source, layout in ((studies, ()), (export_to(studies, "msd", tmp_path / "msd"), ("--layout", "msd"))):
        command = ["export", str(source), "--to", "msd", "-o", str(tmp_path / "out"), *layout]
        refused = CliRunner().invoke(app, [*command, "--labels", "Spleeen"])
        assert refused.exit_code == 2 and "Spleeen" in refused.output, refused.output
        assert not (tmp_path / "out").exists()
    command = ["export", str(studies), "--to", "msd", "-o", str(tmp_path / "out")]
    told = CliRunner().invoke(app, [*command, "--labels", "liver,Spleeen"])
    assert told.exit_code == 0 and "no label map contains Spleeen" in told.output
