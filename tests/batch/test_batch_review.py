"""Images of a run ranked for a review, and how they reach Next Sample."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from segmed.active.store.database import Database
from segmed.active.store.state import ActiveState
from segmed.batch.items import Item
from segmed.batch.manifest import Manifest
from segmed.batch.measurements import measure
from segmed.batch.review import rank_images
from segmed.batch.tasks import Ending, Outcome
from segmed.cli import app
from segmed.imaging.labels.masks import write_mask
from segmed.imaging.reading import read_volume
from typer.testing import CliRunner

COUNT = 12
UNCERTAIN, LARGE, ABSENT, DISPUTED, CHANGED = 2, 3, 5, 7, 9
SHAPE = (16, 16, 4)
RADII = {LARGE: 8, ABSENT: 0}


def _labels(radius: int, at: int = 8) -> np.ndarray:
    i, j, _ = np.indices(SHAPE)
    return np.asarray((abs(i - at) < radius) & (abs(j - 8) < radius), np.uint8)


def _run(out: Path, studies: Path, version: str, second: bool = False) -> Path:
    """A finished run without a model: each image has a square of a similar size."""
    manifest = Manifest(out)
    places = [studies / f"ct{n}.nii.gz" for n in range(COUNT)]
    items = [Item(path.name, f"ct{n}", {"file": str(path)}, 1) for n, path in enumerate(places)]
    manifest.plan({"extension": ".nii.gz", "model": "unet"}, items)
    (out / "masks").mkdir()
    for task in manifest.next_tasks(0, COUNT):
        n = int(task.name[2:])
        labels = _labels(RADII.get(n, 4 + n % 3), 5 if second and n == DISPUTED else 8)
        write_mask(labels, np.eye(4), out / "masks" / f"{task.name}.nii.gz")
        (row,) = measure(labels, labels, (1, 1, 1), {1: "liver"})
        if not second:
            row["uncertainty"] = 0.9 if n == UNCERTAIN else 0.1 + n / 100
        digest = f"{n:064x}" if not (second and n == CHANGED) else "f" * 64
        with manifest.write():
            manifest.end(Outcome(task.item, Ending.DONE, "", digest, {}, (row,)), version)
    manifest.close()
    return out


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    folder = tmp_path / "studies"
    folder.mkdir()
    for n in range(COUNT - 1):  # the last one was removed
        write_mask(_labels(4), np.eye(4), folder / f"ct{n}.nii.gz")
    return folder


def test_each_quantity_finds_its_image(tmp_path: Path, studies: Path) -> None:
    first = _run(tmp_path / "first", studies, "v1")
    second = _run(tmp_path / "second", studies, "v2", second=True)
    found = {q: rank_images(first, second, [q]).findings for q in ("uncertainty", "disagreement", "volume")}
    assert found["uncertainty"][0].image == f"ct{UNCERTAIN}.nii.gz"
    assert "0.90" in found["uncertainty"][0].reason
    worst = found["disagreement"][0]
    # squares of 9 × 9, one moved by 3: Dice 6 / 9
    assert worst.image == f"ct{DISPUTED}.nii.gz" and worst.disagreement == pytest.approx(1 / 3)
    assert "v1 and v2 disagree: Dice 0.67 of liver" in worst.reason
    assert [one.image for one in found["volume"][:2]] == [f"ct{n}.nii.gz" for n in (ABSENT, LARGE)]
    assert "was not found" in found["volume"][0].reason
    assert "0.9 ml, usually" in found["volume"][1].reason  # 15 × 15 × 4 voxels of 1 mm³
    everything = rank_images(first, second)
    top = {one.image for one in everything.findings if one.priority == 1}
    assert top == {f"ct{n}.nii.gz" for n in (UNCERTAIN, DISPUTED, ABSENT)}
    assert any("1 images changed between the runs" in note for note in everything.notes)
    assert len(everything.findings) == COUNT


def test_next_sample_proposes_them(tmp_path: Path, studies: Path) -> None:
    run = _run(tmp_path / "run", studies, "v1")
    words = ["batch", "review", str(run), "--studies", str(studies), "--csv", str(tmp_path / "all.csv")]
    done = CliRunner().invoke(app, [*words, "--by", "volume", "--most", "2"])
    assert done.exit_code == 0, done.output
    assert "2 images are proposed" in " ".join(done.output.split())
    with (tmp_path / "all.csv").open() as file:
        assert [row["image"] for row in csv.DictReader(file)][:2] == ["ct5.nii.gz", "ct3.nii.gz"]
    state = ActiveState(Database(studies / ".segmed"))
    state.observe({f"ct{n}": "f" for n in range(COUNT - 1)}, [])
    ann, bob = state.propose("review", "ann")[0], state.propose("review", "bob")[0]
    assert (ann.image, bob.image) == (f"ct{ABSENT}", f"ct{LARGE}")
    assert "was not found" in ann.note and "usually" in bob.note
    more = state.propose("review", "cid")[0]
    assert more.image not in (ann.image, bob.image) and "drawn at random" in more.note
    assert state.propose("sequential", "dan")[0].note == "", "other strategies do not tell reasons"
    done = CliRunner().invoke(app, [*words, "--by", "uncertainty"])
    assert f"{COUNT - 1} images are proposed" in " ".join(done.output.split())
    assert "1 images are not in the server's folder" in " ".join(done.output.split())
    assert state.propose("review", "eve")[0].image == f"ct{UNCERTAIN}"


def test_a_run_is_exported_for_corrections(tmp_path: Path, studies: Path) -> None:
    run, out = _run(tmp_path / "run", studies, "v1"), tmp_path / "Dataset501_Liver"
    words = ["export", str(run), "--layout", "batch", "--to", "nnunet", "-o", str(out)]
    done = CliRunner().invoke(app, [*words, "--test", "0.25", "--modality", "CT"])
    assert done.exit_code == 0, done.output
    assert "left out" in done.output and "ct11" in done.output, "its image was removed"
    assert json.loads((out / "dataset.json").read_text())["labels"] == {"background": 0, "liver": 1}
    masks = sorted([*(out / "labelsTr").iterdir(), *(out / "labelsTs").iterdir()])
    assert len(masks) == COUNT - 1
    for mask in masks:
        n = int(mask.name.removesuffix(".nii.gz")[2:])
        assert np.array_equal(read_volume(mask).array > 0, _labels(RADII.get(n, 4 + n % 3)) > 0)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("run", "--by", "dice"), "one or more of"),
        (("run", "--by", "disagreement"), "give a second run"),
        (("gone",), "There is no manifest"),
        (("run", "--studies", "gone"), "There is no folder"),
        (("run", "--most", "0"), "at least 1"),
    ],
)
def test_what_cannot_be_ranked_is_said(
    words: tuple[str, ...], says: str, studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _run(tmp_path / "run", studies, "v1")
    done = CliRunner().invoke(app, ["batch", "review", *words])
    assert done.exit_code == 2 and says in " ".join(done.output.split()), done.output
