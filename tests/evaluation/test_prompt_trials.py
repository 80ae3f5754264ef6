"""What is tried on an object of a slice, sheets, peers, and the two scripts from end to end."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from segmed.data.phantom import Phantom
from segmed.evaluation.cases import SliceObject
from segmed.evaluation.metrics import Overlap
from segmed.evaluation.overlay_sheet import Tile, best_median_worst, draw_sheet
from segmed.evaluation.peers import load_peer
from segmed.evaluation.prompt_trials import (
    BOXES,
    CLICKS,
    SCRIBBLES,
    prompt_trials,
    scribbled,
    slice_predictor,
)
from segmed.imaging.prompts import SlicePrompt

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))

import eval_prompts  # noqa: E402
import eval_volumes  # noqa: E402


def _disc(radius: int = 15, x: int = 40) -> np.ndarray:
    rows, columns = np.mgrid[:70, :90]
    return np.asarray((columns - x) ** 2 + (rows - 33) ** 2 <= radius**2)


class Learner:
    """Right from the third click on; keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[SlicePrompt] = []

    def __call__(self, prompt: SlicePrompt) -> np.ndarray:
        self.asked.append(prompt)
        return _disc() if len(prompt.labels) > 2 else _disc(12)


def test_prompts_of_every_column() -> None:
    item, predict = SliceObject(0, 1, _disc()), Learner()
    found = dict(prompt_trials(item, predict, {*BOXES, *CLICKS, *SCRIBBLES}, seed=3))
    assert [*found] == [*BOXES, *CLICKS, *SCRIBBLES]
    boxes = [p.box for p in predict.asked[:4]]
    assert boxes[0] == item.box and len(set(boxes)) > 2
    clicks = predict.asked[4:9]
    assert [len(p.labels) for p in clicks] == [1, 2, 3, 3, 3]  # nothing is wrong after the third
    assert clicks[0].mask is None
    assert all((p.mask == _disc(12)).all() for p in clicks[1:3] if p.mask is not None)
    assert [p.mask is not None for p in clicks] == [False, True, True, True, True]
    assert (
        Overlap.of(found["5 clicks"], item.mask).dice() == 1 > Overlap.of(found["1 click"], item.mask).dice()
    )
    strokes = predict.asked[9:]
    assert len(strokes) == 4 and all(p.scribbles is not None for p in strokes)
    assert strokes[0].mask is None and strokes[1].mask is not None

    again = Learner()
    assert [*dict(prompt_trials(item, again, {"scribble", "box ±20 %"}, seed=3))] == ["box ±20 %", "scribble"]
    assert again.asked[0].box == boxes[3]
    assert again.asked[1].scribbles is not None and strokes[0].scribbles is not None
    assert (again.asked[1].scribbles == strokes[0].scribbles).all()
    assert not [*prompt_trials(item, again, {"ellipse"}, seed=3)]


def test_a_scribble_is_answered_as_the_server_does() -> None:
    strokes = np.zeros((70, 90), np.int8)
    strokes[5, 5:9], strokes[33, 35:45] = 1, -1
    asked = Learner()
    present = _disc(10)
    answer = scribbled(asked, SlicePrompt(box=(1, 1, 80, 60), scribbles=strokes), present)
    assert answer[5, 5:9].all() and not answer[33, 35:45].any()  # strokes count more than the model
    assert asked.asked[0].mask is not None
    assert (asked.asked[0].mask == present).all()  # as it was when it was drawn on
    scribbled(asked, SlicePrompt(box=(1, 1, 80, 60), scribbles=strokes), None)
    assert asked.asked[1].mask is None


@pytest.mark.parametrize("corrects", [True, False])
def test_only_methods_that_correct_masks_get_the_present_one_beside_clicks(corrects: bool) -> None:
    asked: list[SlicePrompt] = []

    def decode(embedding: None, prompts: list[list[SlicePrompt]], size: tuple[int, int]) -> Any:
        asked.append(prompts[0][0])
        return SimpleNamespace(masks=torch.zeros(1, 1, *size))

    method: Any = SimpleNamespace(
        embed=lambda images: None, decode=decode, understood=lambda prompt: prompt, corrects_masks=corrects
    )
    case: Any = SimpleNamespace(picture=SimpleNamespace(shape=(90, 70, 1), slice=lambda k: None))
    click, label = np.array([[20, 33]], np.float32), np.ones(1, np.int64)
    found = slice_predictor(method, case, 0)(SlicePrompt(None, click, label, _disc()))
    assert found.shape == (70, 90) and (asked[0].mask is not None) == corrects


def _tile(n: int, dice: float) -> Tile:
    image = np.random.default_rng(n).integers(0, 255, (70, 90), dtype=np.uint8)
    return Tile.cut(f"case {n}", image, _disc(), _disc(12), dice)


def test_tiles_are_cut_around_the_object_and_ordered(tmp_path: Path) -> None:
    tile = _tile(0, 0.5)
    assert tile.image.shape == tile.truth.shape == tile.found.shape
    assert tile.truth.sum() == _disc().sum() and tile.truth.shape < (70, 90)
    tiles = [_tile(n, dice) for n, dice in enumerate([0.1, 0.9, float("nan"), 0.5, 0.3, 0.8, 0.4, 0.6, 0.2])]
    chosen = [t.dice for t in best_median_worst(tiles, 2)]
    assert chosen[:2] == [0.9, 0.8] and chosen[2:4] == [0.5, 0.4] and chosen[4] == 0.1 and np.isnan(chosen[5])
    assert len(best_median_worst(tiles, 3)) == len(best_median_worst(tiles, 50)) == 9
    draw_sheet(tiles, tmp_path / "sheet.png", columns=4)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 800 and sheet.height > 600
    with pytest.raises(ValueError, match="no object"):
        draw_sheet([], tmp_path / "none.png")


def test_peers() -> None:
    peer = load_peer("classical")
    assert peer.name == "classical" and isinstance(peer.segmenter, torch.nn.Module)
    with pytest.raises(ValueError, match="no method"):
        load_peer("nothing:weights.pth")
    with pytest.raises(FileNotFoundError):
        load_peer("medsam:/nowhere/medsam.pth")


@pytest.fixture
def folder(tmp_path: Path, phantom: Phantom) -> Path:
    """A volume and a picture of two sources."""
    nib.save(nib.Nifti1Image(phantom.image, phantom.affine), tmp_path / "image.nii.gz")
    nib.save(nib.Nifti1Image(phantom.labels, phantom.affine), tmp_path / "label.nii.gz")
    grey = np.where(_disc(), 170, 60) + np.random.default_rng(0).normal(0, 8, (70, 90))
    Image.fromarray(grey.clip(0, 255).astype(np.uint8)).save(tmp_path / "disc.png")
    Image.fromarray(_disc().astype(np.uint8)).save(tmp_path / "disc_label.png")
    names = {str(value): name for value, name in phantom.names.items()}
    entries = [
        {
            "id": "scan",
            "modality": "ct",
            "source": "phantom",
            "image": "image.nii.gz",
            "label": "label.nii.gz",
        },
        {"id": "disc", "modality": "mr", "source": "discs", "image": "disc.png", "label": "disc_label.png"},
    ]
    entries[0]["labels"], entries[1]["labels"] = names, {"1": "disc"}  # type: ignore[assignment]
    (tmp_path / "index.json").write_text(json.dumps(entries))
    return tmp_path


def _run(script: object, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["script", *words])
    script.main()  # type: ignore[attr-defined]


def test_the_script_for_prompts(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, sheet = folder / "out.json", folder / "sheet.png"
    words = [
        str(folder),
        "--method",
        "classical",
        "--max-slices",
        "1",
        "--peer",
        "classical",
        "--json",
        str(out),
    ]
    only = ["--only", "box", "box NSD", "scribble", "ellipse"]
    _run(eval_prompts, [*words, *only, "--sheet", str(sheet), "--worst", "1"], monkeypatch)
    said = capsys.readouterr().out
    assert "| modality | sources | cases | objects | box | box NSD | scribble | ellipse |" in said
    assert "**mean over modalities**" in said and "95 % interval" in said and "| mr | discs | 1 | 1 |" in said
    assert "box · classical" in said and sheet.stat().st_size > 1000
    told = json.loads(out.read_text())
    assert {o["modality"] for o in told["objects"]} == {"ct", "mr"}
    disc = next(o for o in told["objects"] if o["case"] == "disc")
    assert disc["kind"] == "disc" and disc["values"]["box"] > 0.9 and disc["values"]["box NSD"] > 0.9
    # the same method beside itself has the same numbers
    assert all(o["values"]["box"] == o["values"]["box · classical"] for o in told["objects"])
    assert all(o["values"]["scribble"] == o["values"]["scribble · classical"] for o in told["objects"])
    _run(eval_prompts, [*words, "--only", "box", "--sources", "discs"], monkeypatch)
    assert {o["source"] for o in json.loads(out.read_text())["objects"]} == {"discs"}


def test_the_script_for_volumes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder / "out.json"
    words = [str(folder), "--method", "classical", "--limit", "2", "--corrections", "1", "--json", str(out)]
    _run(eval_volumes, words, monkeypatch)
    said = capsys.readouterr().out
    assert "| ct | 1 | 1 | 2 |" in said and "| mr |" not in said  # a picture is no volume
    assert "By kind" in said and "no correction costs over .01" in said
    told = json.loads(out.read_text())
    for item in told["objects"]:
        values = item["values"]
        assert values["largest loss"] == pytest.approx(max(0.0, values["flat box"] - values["1 correction"]))
        assert 0 < values["flat box"] <= 1 and values["flat box s"] > 0
    with pytest.raises(SystemExit, match="no labelled object"):
        _run(eval_volumes, [*words, "--sources", "discs"], monkeypatch)
