"""`segmed predict` with models that were trained here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from segmed.cli import app
from segmed.evaluation.case_scores import CaseScore
from segmed.evaluation.metrics import Overlap
from segmed.imaging.labels.provenance import checksum_of
from segmed.imaging.picture import open_picture
from segmed.imaging.reading import read_volume
from segmed.imaging.store import ByteBoundedStore
from segmed.inference.loading import BackboneConfig, Loader, find_method
from segmed.inference.predictor import Predictor
from segmed.methods.base.trainable import save_trained
from segmed.registry.model_version import DataFingerprint, VersionRecord
from segmed.registry.versions import Registry
from typer.testing import CliRunner

RECORD = VersionRecord(
    (CaseScore("a", "liver", 0.9, 3.0),), DataFingerprint(("a",), {}, {"train": ("a",)}), {}
)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Serves a small U-Net for two structures."""
    training = find_method("unet").training
    assert training is not None
    torch.manual_seed(0)
    network = training.kind(
        None, training.config(labels=("liver", "spleen"), encoder="resnet18", input_size=64), "x"
    )
    found = Registry(tmp_path / "models")
    version = found.add("unet", lambda folder: save_trained(network, folder, ""), RECORD)
    found.promote("unet", version.version)
    return found


def _predict(image: Path, out: Path, registry: Registry, *words: str) -> tuple[int, str]:
    done = CliRunner().invoke(
        app, ["predict", str(image), "-o", str(out), "--registry", str(registry.folder), *words]
    )
    return done.exit_code, " ".join(done.output.split())


def _reproduce(image: Path, record: Path, registry: Registry, out: Path, *words: str) -> tuple[int, str]:
    folder = str(registry.folder)
    command = ["reproduce", str(image), "--record", str(record), "-o", str(out), "--registry", folder, *words]
    done = CliRunner().invoke(app, command)
    return done.exit_code, " ".join(done.output.split())


def test_the_served_version_answers(registry: Registry, tmp_path: Path) -> None:
    image = tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80), dtype=np.uint8)).save(image)
    code, said = _predict(image, tmp_path / "out.nii.gz", registry, "--model", "unet")
    assert code == 0, said
    assert "label 1 is liver" in said and "label 2 is spleen" in said
    served = registry.served("unet")
    assert served is not None
    segmenter = Loader().get("unet", BackboneConfig(), "cpu", served.folder)
    wanted = Predictor(segmenter, ByteBoundedStore(2**20)).segment_classes(open_picture(image))
    assert wanted.any()
    assert np.array_equal(read_volume(tmp_path / "out.nii.gz").array, wanted)
    facts = json.loads((tmp_path / "out.json").read_text())
    weights = checksum_of(served.folder / "weights.safetensors")
    assert facts["Model"] == {"Name": "unet", "Version": served.version, "Weights": weights}
    assert facts["Image"]["SHA256"] == checksum_of(image) and facts["Prompt"] == {}
    code, said = _reproduce(image, tmp_path / "out.json", registry, tmp_path / "again.nii.gz")
    assert code == 0, said
    assert np.array_equal(read_volume(tmp_path / "again.nii.gz").array, wanted)


def test_a_mask_can_be_made_again_from_its_file(registry: Registry, tmp_path: Path) -> None:
    image = tmp_path / "image.png"
    noise = np.random.default_rng(0).integers(0, 90, (60, 80), dtype=np.uint8)
    noise[20:40, 20:50] += 120
    Image.fromarray(noise).save(image)
    words = ("--model", "classical", "--box", "19,50,18,40", "--point", "30,30", "--refinement", "outline")
    code, said = _predict(image, tmp_path / "a.png", registry, *words)
    assert code == 0, said
    facts = json.loads((tmp_path / "a.json").read_text())
    assert facts["Prompt"] == {"boxes": ["19,50,18,40"], "points": ["30,30"]}
    record, places = tmp_path / "a.json", (registry, tmp_path / "b.png")
    assert _reproduce(image, record, *places, "--mask", str(tmp_path / "a.png"))[0] == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    kept = Image.fromarray(255 - np.array(Image.open(tmp_path / "a.png")))
    kept.save(tmp_path / "other.png")
    code, said = _reproduce(image, record, *places, "--mask", str(tmp_path / "other.png"))
    assert code == 1 and f"{60 * 80} voxels differ" in said
    Image.fromarray(255 - noise).save(tmp_path / "negative.png")
    code, said = _reproduce(tmp_path / "negative.png", record, *places)
    assert code == 2 and "another image than that of the record" in said
    facts["Model"]["Weights"] = "other"
    record.write_text(json.dumps(facts))
    code, said = _reproduce(image, record, *places)
    assert code == 2 and "those of the record other" in said
    (tmp_path / "c.json").write_text("{}")
    code, said = _predict(image, tmp_path / "c.png", registry, *words)
    assert code == 2 and "would be replaced" in said and not (tmp_path / "c.png").exists()


def test_masks_of_boxes_from_a_file_can_be_made_again(registry: Registry, tmp_path: Path) -> None:
    image, record = tmp_path / "image.png", tmp_path / "a.json"
    noise = np.random.default_rng(0).integers(0, 90, (60, 80), dtype=np.uint8)
    noise[20:40, 20:50] += 120
    Image.fromarray(noise).save(image)
    (tmp_path / "image.txt").write_text("0 0.44 0.5 0.4 0.36\n")
    words = ("--model", "classical", "--boxes", str(tmp_path / "image.txt"))
    code, said = _predict(image, tmp_path / "a.png", registry, *words)
    assert code == 0, said
    places = (registry, tmp_path / "b.png")
    code, said = _reproduce(image, record, *places, "--mask", str(tmp_path / "a.png"))
    assert code == 0, said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--model", "pan"), "has not been trained"),
        (("--model", "detector"), "Take the model 'auto'"),
        (("--model", "auto"), "has not been trained"),
        (("--model", "unet", "--box", "1,5,1,5"), "takes no prompts"),
        (("--model", "unet", "--scribbles", "image.png"), "takes no prompts"),
        (
            ("--model", "classical", "--scribbles", "image.png", "--box", "1,5,1,5", "--box", "9,15,9,15"),
            "one object",
        ),
    ],
)
def test_what_cannot_be_done_is_said(
    registry: Registry, tmp_path: Path, words: tuple[str, ...], says: str
) -> None:
    image = tmp_path / "image.png"
    Image.fromarray(np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)).save(image)
    words = tuple(str(image) if word == image.name else word for word in words)
    code, said = _predict(image, tmp_path / "out.png", registry, *words)
    assert code == 2 and says in said
    assert not (tmp_path / "out.png").exists()


def test_scribbles_of_a_file_find_the_object(registry: Registry, tmp_path: Path) -> None:
    image, drawn, out = tmp_path / "image.png", tmp_path / "drawn.png", tmp_path / "out.png"
    y, x = np.mgrid[:60, :80]
    disc = (x - 40) ** 2 + (y - 30) ** 2 <= 15**2
    grey = np.where(disc, 170, 60) + np.random.default_rng(0).normal(0, 8, disc.shape)
    Image.fromarray(grey.clip(0, 255).astype(np.uint8)).save(image)
    strokes = np.zeros(disc.shape, np.uint8)
    strokes[30, 30:51], strokes[5, 5:75] = 1, 2
    Image.fromarray(strokes).save(drawn)
    words = ("--model", "classical", "--scribbles", str(drawn))
    code, said = _predict(image, out, registry, *words)
    assert code == 0, said
    found = np.asarray(Image.open(out)) > 0
    assert found[strokes == 1].mean() > 0.8 and not found[strokes == 2].any()
    assert Overlap.of(found, disc).dice() > 0.8
    Image.fromarray(np.where(strokes == 2, 2, 0).astype(np.uint8)).save(drawn)
    code, said = _predict(image, out, registry, *words)
    assert code == 2 and "nothing to segment" in said
