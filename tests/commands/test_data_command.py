"""`segmed data` on small folders."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from segmed.commands.data import app
from segmed.data.datasets.catalogue import DATASETS, load_dataset
from segmed.data.sheet import label_sheet
from segmed.data.survey import survey
from typer.testing import CliRunner

SHARED = Path(__file__).resolve().parents[3] / "shared" / "datasets"


def _folder(root: Path) -> Path:
    """Three volumes of two patients, and one whose label map has another shape."""
    for name, spacing in (("a_1", 1.0), ("a_2", 1.0), ("b_1", 2.5), ("b_2", 2.5)):
        affine = np.diag([1.0, spacing, 4.0, 1.0])
        labels = np.zeros((20, 16, 4 if name == "b_2" else 3), np.uint8)
        labels[2:8, 3:9, 1] = 1
        if name == "b_1":
            labels[10:14, 3:9, 2] = 2
            labels[2:6, 3:9, 2] = 1
        for part, array in (
            ("images", np.random.default_rng(0).uniform(1, 99, (20, 16, 3))),
            ("labels", labels),
        ):
            (root / part).mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array.astype(np.float32), affine), root / part / f"{name}.nii.gz")
    (root / "labels.json").write_text(json.dumps({"1": "left lung", "2": "tumour", "3": "cyst"}))
    return root


def test_survey_counts(tmp_path: Path) -> None:
    seen = []
    found = survey(
        load_dataset("folder", _folder(tmp_path), patient="^(.)_"), lambda *done: seen.append(done)
    )
    assert (found.patients, found.volumes, found.slices, found.labelled) == (2, 3, 9, 4)
    assert found.sizes == ((20, 16, 3), (20, 16, 3))
    assert found.spacing == ((1.0, 1.0, 4.0), (1.0, 2.5, 4.0))
    counts = [(label.name, label.voxels, label.slices, label.patients) for label in found.labels]
    assert counts == [("left lung", 3 * 36 + 24, 4, 2), ("tumour", 24, 1, 1), ("cyst", 0, 0, 0)]
    assert [item.file.name for item in found.skipped] == ["b_2.nii.gz"]
    assert found.examples == (1, 8)  # of b_1 the slice with two labels
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_check_reports_and_draws(tmp_path: Path) -> None:
    root = _folder(tmp_path / "set")
    options = [
        "--sheet",
        str(tmp_path / "s.png"),
        "--sums",
        str(tmp_path / "sums"),
        "--option",
        "patient=^(.)_",
    ]
    result = CliRunner().invoke(app, ["check", "folder", str(root), *options])
    assert result.exit_code == 0, result.output
    for line in (
        "2 patients, 3 images, 9 slices, 4 of them labelled",
        "20 × 16 × 3 voxels",
        "1 × 1–2.5 × 4 mm",
    ):
        assert line in result.output
    assert "tells sides: left lung" in result.output
    assert "skipped: 1" in result.output
    assert "(20, 16, 4)" in result.output
    lines = dict(reversed(line.split("  ")) for line in (tmp_path / "sums").read_text().splitlines())
    assert len(lines) == 6
    assert (
        lines["labels/a_1.nii.gz"]
        == hashlib.sha256((root / "labels" / "a_1.nii.gz").read_bytes()).hexdigest()
    )
    image = np.asarray(Image.open(tmp_path / "s.png").convert("RGB")).astype(int)
    for colour in ((31, 119, 180), (255, 127, 14)):  # outlines of both labels
        assert (np.abs(image - colour).sum(-1) < 30).sum() > 50


def test_check_says_what_is_wrong(tmp_path: Path) -> None:
    runner = CliRunner()
    for arguments, sentence in (
        (["lits", str(tmp_path)], "There is no dataset 'lits'"),
        (["lgg", str(tmp_path / "no")], "kaggle.com"),
        (["lgg", str(tmp_path)], "holds no LGG slices"),
        (["lgg", str(tmp_path), "-o", "x"], "Give KEY=VALUE"),
        (["lgg", str(tmp_path), "-o", "x=1"], "no option 'x'"),
        (["lgg", str(tmp_path), "--sheet", str(tmp_path / "no" / "s.png")], "Make it first"),
    ):
        result = runner.invoke(app, ["check", *arguments])
        assert result.exit_code == 2
        assert sentence in " ".join(result.output.split()), result.output
    with pytest.raises(ValueError, match=r"written as \.png"):
        label_sheet(load_dataset("folder", _folder(tmp_path)), [0], tmp_path / "s.jpg")
    with pytest.raises(ValueError, match="no labelled slice"):
        label_sheet(load_dataset("folder", tmp_path), [], tmp_path / "s.png")


def test_list_names_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    output = CliRunner().invoke(app, ["list"]).output
    assert all(name in output for name in DATASETS)


@pytest.mark.skipif(not SHARED.is_dir(), reason="no folder ../shared/datasets beside the checkout")
def test_survey_of_real_files(tmp_path: Path) -> None:
    msd = load_dataset("msd", SHARED / "msd_hippocampus")
    assert msd.lateralised == ("Anterior", "Posterior")
    part = msd.of(msd.patients[:4])
    found = survey(part)
    assert (found.patients, found.skipped, found.spacing[0]) == (4, (), (1.0, 1.0, 1.0))
    assert all(label.voxels > 1000 and label.patients == 4 for label in found.labels)
    assert label_sheet(part, found.examples, tmp_path / "msd.png").stat().st_size > 10_000
    lgg = load_dataset("lgg", SHARED / "lgg")
    found = survey(lgg.of(lgg.patients[:2]))
    assert found.labels[0].patients == 2
    assert found.sizes[0] == (256, 256, 1)
