"""`segmed models export`: files that other programs read, with the same results."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from segmed.cli import app
from segmed.data.phantom import make_phantom
from segmed.evaluation.case_scores import CaseScore
from segmed.imaging.picture import open_picture
from segmed.imaging.prompts import Box, Prompt, SlicePrompt
from segmed.imaging.reading import read_volume
from segmed.imaging.store import ByteBoundedStore
from segmed.inference.loading import Loader
from segmed.inference.predictor import Predictor
from segmed.inference.runtimes import export as exports
from segmed.inference.runtimes.bundle import Source
from segmed.inference.runtimes.export import export_method
from segmed.methods import find_method
from segmed.methods.base.backbone import BackboneConfig
from segmed.methods.base.trainable import save_trained
from segmed.methods.classical import Classical
from segmed.methods.gafl.gafl import Gafl
from segmed.methods.sam.medsam import MedSam
from segmed.methods.sam.sam import Sam
from segmed.methods.sam.sam2 import Sam2
from segmed.registry.model_version import DataFingerprint, VersionRecord
from segmed.registry.versions import Registry
from segmed.sam.sam2 import Sam2Weights, image_model
from tiny_sam import save_folder, tiny_sam
from tiny_sam2 import tiny_sam2
from transformers import Sam2VideoModel, SamModel
from typer.testing import CliRunner

SAM = Source("sam", base_name="tiny")
_IMAGE = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def sam() -> Sam:
    return Sam(tiny_sam(), "sam-test").eval()


@torch.inference_mode()
def test_onnx_files_give_the_masks_of_a_box(sam: Sam, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    export_method(sam, SAM, "onnx", tmp_path / "out")
    facts = json.loads((tmp_path / "out" / "segmed.json").read_text(encoding="utf-8"))
    shown = facts["preprocessing"]
    assert np.allclose(shown["mean"], [0.485, 0.456, 0.406]) and np.allclose(
        shown["sd"], [0.229, 0.224, 0.225]
    )
    assert shown["input_size"] == 256 and shown["keep_aspect"] is True
    assert facts["graphs"]["decoder"]["inputs"]["points"] == ["prompts", "points", 2]
    mean, sd = (torch.tensor(shown[name]).float()[:, None, None] for name in ("mean", "sd"))
    encoder, decoder = (
        runtime.InferenceSession(tmp_path / "out" / f"{name}.onnx") for name in ("encoder", "decoder")
    )
    (features,) = encoder.run(None, {"pixel_values": ((_IMAGE - mean) / sd).numpy()})
    inputs = {
        "image_embeddings": features,
        "points": np.array([[[20, 15], [200, 180]]], np.float32),
        "labels": np.array([[2, 3]], np.float32),
        "mask": np.zeros((1, 1, 64, 64), np.float32),
        "has_mask": np.zeros((1, 1, 1, 1), np.float32),
    }
    masks, iou = decoder.run(None, inputs)
    wanted = sam.decode(sam.encode(_IMAGE), [[SlicePrompt(box=(20, 15, 200, 180))]], (64, 64))
    assert wanted.quality is not None
    assert np.allclose(masks[:, :1], wanted.masks.numpy(), atol=1e-4)
    assert np.allclose(iou[:, :1], wanted.quality.numpy(), atol=1e-5)


def test_the_default_model_by_the_command(tmp_path: Path) -> None:
    if find_spec("openvino") is None:
        pytest.skip("OpenVINO is not installed")
    out = tmp_path / "out"
    options = ("models", "export", "segmed", "--to", "openvino", "-o", str(out), "--registry", str(tmp_path))
    result = CliRunner().invoke(app, options)
    assert result.exit_code == 0, result.output
    assert {path.name for path in out.iterdir()} == {"network.xml", "network.bin", "segmed.json", "README.md"}
    assert "untrained" in (out / "README.md").read_text(encoding="utf-8")
    again = CliRunner().invoke(app, options)
    assert again.exit_code == 2 and "exists. Give the name of a new folder" in " ".join(again.output.split())


@torch.inference_mode()
def test_hugging_face_folders_are_loaded_by_transformers(sam: Sam, tmp_path: Path) -> None:
    medsam = MedSam(tiny_sam(), "medsam-test").eval()
    export_method(medsam, SAM, "hf", tmp_path / "sam")
    loaded = SamModel.from_pretrained(tmp_path / "sam").eval()
    assert torch.equal(loaded.vision_encoder(_IMAGE).last_hidden_state, medsam.encode(_IMAGE).features)
    assert BackboneConfig(str(tmp_path / "sam")) and Loader().get(
        "sam", BackboneConfig(str(tmp_path / "sam"), precision="fp32")
    )
    memory = tiny_sam2()
    sam2 = Sam2(Sam2Weights(image_model(memory), memory).eval())
    export_method(sam2, Source("sam2"), "hf", tmp_path / "sam2")
    back = Sam2VideoModel.from_pretrained(tmp_path / "sam2").state_dict()
    assert all(torch.equal(t, back[name]) for name, t in memory.state_dict().items())


def test_a_bundle_runs_in_a_folder_of_its_own(sam: Sam, tmp_path: Path) -> None:
    phantom = make_phantom("CT", (64, 56, 8), (4, 4, 10), seed=3)
    image = tmp_path / "ct.nii.gz"
    nib.save(nib.Nifti1Image(phantom.image, phantom.affine), image)
    base = save_folder(tiny_sam(), tmp_path / "base")
    out = tmp_path / "out"
    options = (
        "--to",
        "bundle",
        "-o",
        str(out),
        "--backbone",
        str(base),
        "--registry",
        str(tmp_path / "none"),
    )
    result = CliRunner().invoke(app, ["models", "export", "sam", *options])
    assert result.exit_code == 0, result.output
    assert json.loads((out / "configs" / "metadata.json").read_text(encoding="utf-8"))["network_data_format"]
    for path in base.iterdir():
        path.unlink()  # the bundle needs nothing outside of it
    words = ["--config_file", "configs/inference.json", "--image", str(image), "--output", "../mask.nii.gz"]
    command = [sys.executable, "-m", "monai.bundle", "run", *words, "--box", "[10,40,12,44,3,3]"]
    done = subprocess.run(command, cwd=out, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    found = np.asarray(nib.Nifti1Image.from_filename(tmp_path / "mask.nii.gz").dataobj)
    segmenter = Loader().get("sam", BackboneConfig(str(out / "models" / "base")))
    predictor = Predictor(segmenter, ByteBoundedStore(2**28))
    wanted = predictor.segment_slices(open_picture(image), Prompt(Box((10, 40), (12, 44), (3, 3))))
    assert (found[:, :, 3].T > 0).mean() == pytest.approx(wanted[3].mean(), abs=0.02) and wanted[3].any()
    assert not found[:, :, 4].any()


def test_a_served_version_runs_as_a_bundle_whose_card_tells_of_its_training(tmp_path: Path) -> None:
    training = find_method("unet").training
    assert training is not None
    torch.manual_seed(0)
    config = training.config(labels=("liver", "a|b"), encoder="resnet18", input_size=32)
    network = training.kind(None, config, "x").eval()
    scores = tuple(CaseScore(f"Mary {n}", "a|b", 0.5 + n / 10, 2.5, nsd=0.75) for n in range(3))
    data = DataFingerprint(("Mary 0", "Mary 1"), {}, {"train": ("Mary 0",), "validation": ("Mary 1",)})
    record = VersionRecord(scores, data, {"epochs": 7, "folder": "/home/mary/studies"})
    registry = Registry(tmp_path / "models")
    version = registry.add("unet", lambda folder: save_trained(network, folder, ""), record).version
    registry.promote("unet", version)
    out, image = tmp_path / "out", tmp_path / "image.png"
    options = ("--to", "bundle", "-o", str(out), "--registry", str(registry.folder))
    result = CliRunner().invoke(app, ["models", "export", "unet", *options])
    assert result.exit_code == 0, result.output
    card = (out / "README.md").read_text(encoding="utf-8")
    assert f"| version | `{version}` |" in card and "| images | 2 (1 train, 1 validation) |" in card
    assert "| a\\|b | 3 | 0.600 | 0.750 | 2.5 | 0 |" in card and "| epochs | 7 |" in card
    assert "mary" not in card.lower(), "neither images nor folders are named"

    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 48), dtype=np.uint8)).save(image)
    words = ["--config_file", "configs/inference.json", "--image", str(image), "--output", "../mask.nii.gz"]
    command = [sys.executable, "-m", "monai.bundle", "run", *words]
    done = subprocess.run(command, cwd=out, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    wanted = Predictor(network, ByteBoundedStore(2**20)).segment_classes(open_picture(image))
    assert wanted.any() and np.array_equal(read_volume(tmp_path / "mask.nii.gz").array, wanted)


def test_missing_packages_are_named(sam: Sam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'segmed\[onnx\]'"):
        export_method(sam, SAM, "onnx", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("method", "to", "words"),
    [
        ("classical", "onnx", "it is no network. Choose bundle"),
        ("classical", "hf", "transformers has no model of this kind"),
        ("gafl", "onnx", "complex numbers"),
        ("gafl", "hf", "The model alone is not the whole method"),
        ("sam2", "openvino", "its memory grows"),
        ("sam", "coreml", "Choose one of onnx, openvino, hf, bundle"),
    ],
)
def test_what_cannot_be_exported_is_refused_with_a_reason(
    sam: Sam, tmp_path: Path, method: str, to: str, words: str
) -> None:
    memory = tiny_sam2()
    made = {
        "classical": lambda: Classical(),
        "gafl": lambda: Gafl(tiny_sam()),
        "sam2": lambda: Sam2(Sam2Weights(image_model(memory), memory)),
        "sam": lambda: sam,
    }[method]()
    with pytest.raises(ValueError, match=words):
        export_method(made, Source(method), to, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_files_with_other_results_never_appear(
    sam: Sam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(
        exports.Graph, "run", lambda graph, *inputs: tuple(t + 1 for t in [graph.module(*inputs)])
    )
    with pytest.raises(ValueError, match="gives another output 'image_embeddings' than PyTorch"):
        export_method(sam, SAM, "onnx", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
