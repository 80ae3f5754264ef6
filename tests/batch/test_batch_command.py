"""`segmed batch` from the command line, with a method that needs no weights and with trained ones."""

from __future__ import annotations

import csv
import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from segmed.batch.report import collect, measurement_rows
from segmed.cli import app
from segmed.evaluation.case_scores import CaseScore
from segmed.imaging.labels.provenance import checksum_of
from segmed.imaging.reading import read_volume
from segmed.inference.loading import find_method
from segmed.methods.base.trainable import save_trained
from segmed.registry.model_version import WEIGHTS, DataFingerprint, VersionRecord
from segmed.registry.versions import Registry
from typer.testing import CliRunner

RECORD = VersionRecord(
    (CaseScore("a", "liver", 0.9, 3.0),), DataFingerprint(("a",), {}, {"train": ("a",)}), {}
)


def _batch(*words: object) -> tuple[int, str]:
    more = ["--nice", "0"] if words[0] == "run" else []  # this process goes on with other tests
    done = CliRunner().invoke(app, ["batch", *map(str, words), *more])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, " ".join(done.output.split())


def _disc(path: Path, radius: int) -> None:
    y, x = np.mgrid[:60, :80]
    grey = np.where((x - 40) ** 2 + (y - 30) ** 2 <= radius**2, 170, 60)
    noise = np.random.default_rng(radius).normal(0, 8, grey.shape)
    Image.fromarray((grey + noise).clip(0, 255).astype(np.uint8)).save(path)


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """Three discs, a file that is no image, and boxes for all but one."""
    folder = tmp_path / "studies"
    folder.mkdir()
    for n, radius in enumerate((10, 14, 18)):
        _disc(folder / f"disc{n}.png", radius)
    (folder / "broken.png").write_bytes(b"no picture")
    rows = [f"disc{n}.png,disc,{40 - r},{40 + r},{30 - r},{30 + r}" for n, r in enumerate((10, 14))]
    rows += ["broken.png,disc,1,9,1,9", "elsewhere.png,disc,1,9,1,9"]
    (tmp_path / "boxes.csv").write_text("image,label,i0,i1,j0,j1\n" + "\n".join(rows) + "\n")
    return folder


def test_a_folder_with_boxes(studies: Path, tmp_path: Path) -> None:
    out, boxes = tmp_path / "out", tmp_path / "boxes.csv"
    words = ("run", studies, "-o", out, "--model", "classical", "--registry", tmp_path / "models")
    code, said = _batch(*words, "--boxes", boxes, "--previews", "--format", "nii.gz", "--uncertainty")
    assert code == 1, said
    assert "2 of 4 items are done, 2 failed" in said and "1 images of boxes.csv are not there" in said
    for n, radius in enumerate((10, 14)):
        mask = read_volume(out / "masks" / f"disc{n}.nii.gz").array > 0
        assert abs(mask.sum() / (np.pi * radius**2) - 1) < 0.15
        facts = json.loads((out / "masks" / f"disc{n}.json").read_text())
        assert facts["Model"]["Name"] == "classical" and facts["Model"]["Version"] == "untrained"
        assert facts["Prompt"]["boxes"][0]["label"] == "disc"
        assert facts["Image"]["SHA256"] == checksum_of(studies / f"disc{n}.png")
        assert Image.open(out / "previews" / f"disc{n}.png").size == (80, 60)
    with (out / "measurements.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == ["disc0.png", "disc1.png"]
    assert float(rows[1]["voxels"]) > float(rows[0]["voxels"]) > 0 and rows[0]["name"] == "disc"
    assert all(0 < float(row["uncertainty"]) < 0.5 for row in rows)  # the boxes move by a tenth
    code, said = _batch("report", out, "--json", out / "report.json")
    assert code == 1 and "There is no box for" in said
    assert json.loads((out / "report.json").read_text())["states"] == {"done": 2, "failed": 2}
    code, said = _batch("export", out, "--to", tmp_path / "all.parquet")
    if find_spec("pyarrow") is None:
        assert code == 2 and "pip install pyarrow" in said
        return
    assert code == 0, said
    from pyarrow import parquet

    assert parquet.read_table(tmp_path / "all.parquet").column("voxels").to_pylist() == [
        int(row["voxels"]) for row in rows
    ]


def test_a_finished_run_changes_nothing_and_others_are_refused(studies: Path, tmp_path: Path) -> None:
    out, boxes = tmp_path / "out", tmp_path / "boxes.csv"
    words = ("run", studies, "-o", out, "--model", "classical", "--registry", tmp_path / "models")
    _batch(*words, "--boxes", boxes)
    before = {path: path.stat().st_mtime_ns for path in (out / "masks").iterdir()}
    assert len(before) == 6
    assert _batch(*words, "--boxes", boxes)[0] == 1
    assert {path: path.stat().st_mtime_ns for path in (out / "masks").iterdir()} == before
    code, said = _batch(*words, "--boxes", boxes, "--window", "percentiles")
    assert code == 2 and "was planned with window 'auto'" in said
    boxes.write_text(boxes.read_text().replace("disc2", "disc1"))
    boxes.write_text(boxes.read_text() + "disc2.png,disc,22,58,12,48\n")
    code, said = _batch(*words, "--boxes", boxes)
    assert code == 2 and "boxes_sha" in said
    assert collect(out).states == {"done": 2, "failed": 2}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--model", "classical"), "needs prompts"),
        (("--model", "unet", "--boxes", "boxes.csv"), "takes no prompts"),
        (("--model", "unet"), "has not been trained"),
        (("--model", "vnet"), "no method 'vnet'"),
        (("--model", "classical", "--boxes", "boxes.csv", "--detector"), "exclude each other"),
        (("--model", "classical", "--boxes", "gone.csv"), "There is no file"),
        (("--model", "classical", "--boxes", "boxes.csv", "--shard", "3/3"), "Give i/n"),
        (("--model", "classical", "--boxes", "boxes.csv", "--send"), "DICOMweb address"),
        (("--model", "classical", "--boxes", "boxes.csv", "--format", "dcm"), "not as '.dcm'"),
        (("--model", "classical", "--boxes", "boxes.csv", "--filter", "x"), "Give KEY=VALUE"),
        (("--model", "classical", "--boxes", "boxes.csv", "--workers", "0"), "at least 1"),
        (("--model", "classical", "--boxes", "boxes.csv", "--version", "1-ab"), "version"),
    ],
)
def test_what_cannot_be_run_is_said(
    studies: Path, tmp_path: Path, words: tuple[str, ...], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, said = _batch("run", studies, "-o", "out", "--registry", "models", *words)
    assert code == 2 and says in said, said
    assert not (tmp_path / "out" / "masks").exists()


def _add(registry: Registry, seed: int) -> str:
    training = find_method("unet").training
    assert training is not None
    torch.manual_seed(seed)
    config = training.config(labels=("liver", "spleen"), encoder="resnet18", input_size=64)
    network = training.kind(None, config, "x")
    version = registry.add("unet", lambda folder: save_trained(network, folder, ""), RECORD)
    registry.promote("unet", version.version)
    return version.version


def test_a_version_that_is_promoted_meanwhile_is_not_used(studies: Path, tmp_path: Path) -> None:
    registry, out = Registry(tmp_path / "models"), tmp_path / "out"
    (studies / "broken.png").unlink()
    first = _add(registry, 0)
    words = ("run", studies, "-o", out, "--model", "unet", "--registry", registry.folder, "--ignore-server")
    words = (*words, "--uncertainty")
    assert _batch(*words, "--shard", "0/2")[0] == 0
    assert _add(registry, 1) != first
    _disc(studies / "later.png", 12)
    _disc(studies / "last.png", 12)
    code, said = _batch(*words, "--shard", "0/2", "--rescan")
    assert code == 0, said
    found = [json.loads(path.read_text()) for path in sorted((out / "masks").glob("*.json"))]
    assert {one["Model"]["Version"] for one in found} == {first}
    weights = checksum_of(registry.folder / "unet" / first / WEIGHTS)
    assert {one["Model"]["Weights"] for one in found} == {weights}
    code, said = _batch("status", out)
    assert code == 0 and "These shards have not begun: 1/2" in said
    code, said = _batch(*words, "--shard", "1/2", "--version", first)
    assert code == 0 and collect(out).is_complete, said
    assert len(list((out / "masks").glob("*.nii.gz"))) == 5
    assert collect(out).same_content == 1, "later and last are the same picture"
    entropies = {row["image"]: row["uncertainty"] for row in measurement_rows(out)}
    assert all(0 < entropy <= 1 for entropy in entropies.values()), "an untrained network is not sure"
    assert entropies["later.png"] == pytest.approx(entropies["last.png"])
