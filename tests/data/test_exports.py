"""Exports of datasets, read back as the programs they are for would, and annotations on their way back."""

from __future__ import annotations

import json
import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from export_studies import PATIENTS, export_to, make_studies, truth_of
from PIL import Image
from scipy import ndimage
from segmed.cli import app
from segmed.data.exports.annotation_tools import import_annotations
from segmed.data.exports.instances import instances_of
from skimage.draw import polygon2mask
from typer.testing import CliRunner


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_studies(tmp_path_factory.mktemp("studies"))


@pytest.mark.parametrize("to", ["coco", "yolo", "nnunet"])
def test_label_maps_of_whole_floats_are_exported(studies: Path, to: str, tmp_path: Path) -> None:
    copy = tmp_path / "studies"
    shutil.copytree(studies, copy)
    for path in (copy / "labels" / "final").iterdir():
        stored = nib.load(path)
        nib.save(nib.Nifti1Image(np.asarray(stored.dataobj).astype(np.float32), stored.affine), path)
    out = tmp_path / ("Dataset501_Liver" if to == "nnunet" else "out")
    found = sorted(p.relative_to(out).as_posix() for p in export_to(copy, to, out).rglob("*") if p.is_file())
    plain = tmp_path / "plain" / out.name
    plain.parent.mkdir()
    assert found == sorted(
        p.relative_to(plain).as_posix() for p in export_to(studies, to, plain).rglob("*") if p.is_file()
    )


SPLIT = ("--validation", "0.2", "--test", "0.2", "--patient", "(p\\d)")


def test_nnunet_finds_what_its_check_wants(studies: Path, tmp_path: Path) -> None:
    out = export_to(studies, "nnunet", tmp_path / "Dataset501_Liver", *SPLIT, "--modality", "CT")
    facts = json.loads((out / "dataset.json").read_text())
    assert facts["channel_names"] == {"0": "CT"}
    assert facts["labels"] == {"background": 0, "liver": 1, "lesion": 2}
    training = sorted((out / "labelsTr").iterdir())
    assert len(training) == facts["numTraining"] == 4 and len(list((out / "labelsTs").iterdir())) == 1
    for label in training:
        name = label.name.removesuffix(".nii.gz")
        found, image = nib.load(label), nib.load(out / "imagesTr" / f"{name}_0000.nii.gz")
        assert np.array_equal(found.affine, image.affine) and found.shape == image.shape
        truth = truth_of(int(re.search(r"p(\d)", name)[1]))  # type: ignore[index]
        assert np.array_equal(np.asarray(found.dataobj), np.select([truth == 2, truth == 5], [1, 2]))
    (fold,) = json.loads((out / "splits_final.json").read_text())
    assert sorted(fold["train"] + fold["val"]) == [p.name.removesuffix(".nii.gz") for p in training]
    assert len(fold["val"]) == 1 and len(json.loads((out / "split.json").read_text())["test"]) == 1


def test_msd_and_bids_name_their_files(studies: Path, tmp_path: Path) -> None:
    out = export_to(studies, "msd", tmp_path / "Task", *SPLIT)
    facts = json.loads((out / "dataset.json").read_text())
    assert len(facts["training"]) == facts["numTraining"] == 4 and len(facts["test"]) == 1
    assert all((out / pair[kind]).is_file() for pair in facts["training"] for kind in ("image", "label"))
    assert facts["labels"] == {"0": "background", "1": "liver", "2": "lesion"}
    out = export_to(studies, "bids", tmp_path / "derivatives", *SPLIT, "--modality", "CT")
    masks = sorted(out.rglob("*_dseg.nii.gz"))
    assert len(masks) == PATIENTS
    for mask in masks:
        stem = mask.name.removesuffix(".nii.gz")
        assert re.fullmatch(r"sub-p\d_run-1_desc-SegMed_dseg", stem)
        table = mask.with_name(f"{stem}.tsv").read_text().splitlines()
        assert [row.split("\t")[:2] for row in table[1:]] == [["1", "liver"], ["2", "lesion"]]
        (source,) = json.loads(mask.with_name(f"{stem}.json").read_text())["Sources"]
        assert (out / source.removeprefix("bids::")).is_file() and source.endswith("_CT.nii.gz")
    assert json.loads((out / "dataset_description.json").read_text())["DatasetType"] == "derivative"


def _filled(polygons: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    drawn = np.zeros(shape, bool)
    for polygon in polygons:
        drawn |= polygon2mask(shape, polygon[:, ::-1] - 0.5)
    return drawn


def test_polygons_of_instances_fill_their_masks() -> None:
    labels = (ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(60, 50)), 3) > 0.05).astype(int)
    found = instances_of(labels)
    assert len(found) > 3 and sum(one.mask.sum() for one in found) == labels.sum()
    for one in found:
        filled = ndimage.binary_fill_holes(one.mask)
        drawn = _filled(list(one.polygons), (60, 50))
        assert (drawn ^ filled).sum() <= 0.03 * filled.sum() + 1


def test_coco_and_yolo_hold_the_same_objects(studies: Path, tmp_path: Path) -> None:
    coco = export_to(studies, "coco", tmp_path / "coco", *SPLIT)
    yolo = export_to(studies, "yolo", tmp_path / "yolo", *SPLIT)
    for part in ("train", "val", "test"):
        found = json.loads((coco / "annotations" / f"instances_{part}.json").read_text())
        names = {image["id"]: image["file_name"] for image in found["images"]}
        assert {path.name for path in (coco / "images" / part).iterdir()} == set(names.values())
        for one in found["annotations"]:
            x, y, width, height = one["bbox"]
            corners = np.array(one["segmentation"][0]).reshape(-1, 2)
            assert np.abs(corners.min(0) - (x, y)).max() <= 0.5
            assert np.abs(corners.max(0) - (x + width, y + height)).max() <= 0.5
            assert one["area"] <= width * height
        for image, name in names.items():
            lines = (yolo / "labels" / part / f"{Path(name).stem}.txt").read_text().splitlines()
            assert len(lines) == sum(one["image_id"] == image for one in found["annotations"])
    livers = [one for one in found["annotations"] if one["category_id"] == 1]
    assert found["categories"] == [{"id": 1, "name": "liver"}, {"id": 2, "name": "lesion"}]
    assert [one["area"] for one in livers] == [121, 112]
    assert '"liver"' in (yolo / "data.yaml").read_text()


def test_cocos_own_reader_draws_the_masks(studies: Path, tmp_path: Path) -> None:
    reader = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    evaluation = pytest.importorskip("pycocotools.cocoeval", reason="pycocotools is not installed")
    out = export_to(studies, "coco", tmp_path / "coco")
    read = reader.COCO(str(out / "annotations" / "instances_train.json"))
    assert len(read.getImgIds()) == PATIENTS * 3
    assert [c["name"] for c in read.loadCats(read.getCatIds())] == ["liver", "lesion"]
    results = []
    for one in read.loadAnns(read.getAnnIds()):
        # holes are filled, and a corner may be cut
        assert 0.95 <= read.annToMask(one).sum() / one["area"] <= 1.15
        facts = {key: one[key] for key in ("image_id", "category_id", "segmentation", "bbox")}
        results.append(facts | {"score": 1.0})
    scores = evaluation.COCOeval(read, read.loadRes(results), "segm")
    scores.evaluate()
    scores.accumulate()
    scores.summarize()
    assert scores.stats[0] == pytest.approx(1), "what is found is what was exported"


def test_nnunets_own_check_accepts_it(studies: Path, tmp_path: Path) -> None:
    name = "nnunetv2.experiment_planning.verify_dataset_integrity"
    check = pytest.importorskip(name, reason="nnunetv2 is not installed")
    out = export_to(studies, "nnunet", tmp_path / "Dataset501_Liver", *SPLIT, "--modality", "CT")
    check.verify_dataset_integrity(str(out), 1)
    (next((out / "labelsTr").iterdir())).unlink()
    with pytest.raises((AssertionError, FileNotFoundError, RuntimeError)):
        check.verify_dataset_integrity(str(out), 1)


@pytest.mark.parametrize("tool", ["label-studio", "cvat"])
def test_annotations_come_back_on_the_grid_of_their_images(tool: str, studies: Path, tmp_path: Path) -> None:
    out = export_to(studies, tool, tmp_path / "out")
    if tool == "cvat":
        file = out / "annotations.xml"
        tree = ET.parse(file)
        image = next(one for one in tree.iter("image") if one.get("name") == "p0_ct_0000.png")
        ET.SubElement(image, "box", label="cyst", xtl="1", ytl="2", xbr="4", ybr="6")
        ET.SubElement(image, "points", label="cyst", points="1,2")
        tree.write(file)
    else:
        file = tmp_path / "annotated.json"
        tasks = json.loads((out / "tasks.json").read_text())
        for task in tasks:
            task["annotations"] = [{"result": one["result"]} for one in task.pop("predictions")]
        box = {"x": 100 / 24, "y": 10, "width": 300 / 24, "height": 20, "rectanglelabels": ["cyst"]}
        size = {"original_width": 24, "original_height": 20}
        first = next(task for task in tasks if task["data"]["name"] == "p0_ct_0000.png")
        keypoint = {"type": "keypointlabels", "value": {}}
        first["annotations"] = [{"result": [{**size, "type": "rectanglelabels", "value": box}, keypoint]}]
        file.write_text(json.dumps(tasks))
    count, notes = import_annotations(file, out, tmp_path / "back")
    assert count == PATIENTS and "1 " in notes[0]
    for n in range(PATIENTS):
        found = nib.load(tmp_path / "back" / f"p{n}_ct.nii.gz")
        truth = np.select([truth_of(n) == 2, truth_of(n) == 5], [1, 2])
        if n == 0:
            truth[1:4, 2:6, 0] = 3
        assert np.array_equal(found.affine, nib.load(studies / f"p{n}-ct.nii.gz").affine)
        wrong = (np.asarray(found.dataobj) != truth).sum()
        assert wrong <= 0.02 * (truth > 0).sum(), wrong
    assert "cyst" in (tmp_path / "back" / "p0_ct.tsv").read_text()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.xml", "<annotations><image/></annotations>"),
        ("a.xml", '<!DOCTYPE x [<!ENTITY a "b">]><annotations/>'),
        ("a.xml", "<annotations"),
        ("a.json", "{}{"),
        ("a.json", '[{"annotations": [{"result": [{"type": "polygonlabels"}]}], "data": {}}]'),
    ],
)
def test_annotations_of_another_form_are_refused(name: str, text: str, studies: Path, tmp_path: Path) -> None:
    (tmp_path / "segmed.json").write_text('{"cases": {}, "labels": {"1": "liver"}}')
    (tmp_path / name).write_text(text)
    if name == "a.xml" and "<image/>" in text:
        assert import_annotations(tmp_path / name, tmp_path, tmp_path / "out")[0] == 0
        return
    with pytest.raises(ValueError, match="is not what"):
        import_annotations(tmp_path / name, tmp_path, tmp_path / "out")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--to", "nnunet", "-o", "liver"), "Dataset501_Liver"),
        (("--to", "msd", "-o", "."), "is not empty"),
        (("--to", "coco", "-o", "x", "--labels", "kidney"), "No label map contains kidney"),
        (("--to", "seg", "-o", "x.dcm"), "Give --series"),
        (("--to", "msd", "-o", "x", "--test", "1.5"), "must be shares"),
    ],
)
def test_what_cannot_be_exported_is_said(
    words: tuple[str, ...], says: str, studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("L", (4, 4)).save("beside.png")
    done = CliRunner().invoke(app, ["export", str(studies), *words])
    assert done.exit_code == 2 and says in " ".join(done.output.split()), done.output
