"""Methods on OpenVINO: the same masks, a cache on disk, and PyTorch where that is impossible."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from segmed.imaging.prompts import SlicePrompt
from segmed.inference.loading import Loader
from segmed.inference.runtimes import compiled as compiled_methods
from segmed.inference.runtimes.compiled import compile_method
from segmed.inference.runtimes.openvino_graphs import Compiler
from segmed.methods.base.backbone import BackboneConfig
from segmed.methods.base.segmenter import Segmenter
from segmed.methods.sam.class_head import ClassSegmenter, with_classes
from segmed.methods.sam.sam import Sam
from segmed.server.config.settings import ServerSettings
from tiny_sam import save_folder, tiny_sam

pytestmark = pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed")

SIZE = (90, 120)
BOX = SlicePrompt(box=(20.0, 15.0, 80.0, 70.0))
CLICKS = SlicePrompt(points=np.array([[30, 20], [70, 50]], np.float32), labels=np.array([1, 0]))
CLICK = SlicePrompt(points=np.array([[30, 20]], np.float32), labels=np.ones(1, np.int64))
MASK = SlicePrompt(box=BOX.box, mask=np.pad(np.ones((40, 50), bool), ((20, 30), (30, 40))))
BOTH = SlicePrompt(BOX.box, CLICKS.points, CLICKS.labels)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def plain() -> Sam:
    return Sam(tiny_sam(), "sam-test").eval()


@pytest.fixture(scope="module")
def quick(plain: Sam, folder: Path) -> Segmenter:
    return compile_method(plain, "fp32", folder)


def _image(seed: int = 0) -> np.ndarray:
    coarse = torch.rand(1, 1, 6, 8, generator=torch.Generator().manual_seed(seed))
    return (torch.nn.functional.interpolate(coarse, SIZE, mode="bilinear")[0, 0].numpy() * 255).astype("u1")


@torch.inference_mode()
@pytest.mark.parametrize(
    "prompt", [BOX, CLICK, CLICKS, MASK, BOTH], ids=["box", "click", "two", "mask", "all"]
)
def test_every_prompt_gives_the_same_logits(plain: Sam, quick: Segmenter, prompt: SlicePrompt) -> None:
    images = [_image(0), _image(1)]
    wanted = plain.decode(plain.embed(images), [[prompt, BOX]] * 2, SIZE)
    found = quick.decode(quick.embed(images), [[prompt, BOX]] * 2, SIZE)
    assert torch.allclose(found.masks, wanted.masks, atol=1e-4)
    assert wanted.quality is not None and found.quality is not None
    assert torch.allclose(found.quality, wanted.quality, atol=1e-5)
    assert wanted.masks.std() > 1e-3


@torch.inference_mode()
def test_candidates_and_classes(plain: Sam, quick: Segmenter, folder: Path) -> None:
    wanted = plain.candidates(plain.embed([_image()]), [CLICK, BOX], SIZE)
    found = quick.candidates(quick.embed([_image()]), [CLICK, BOX], SIZE)
    assert found.masks.shape == (2, 3, *SIZE) and torch.allclose(found.masks, wanted.masks, atol=1e-4)
    model = with_classes(tiny_sam(), 4)
    classes = ClassSegmenter(model, ("a", "b", "c"), "classes").eval()
    other = compile_method(classes, "fp32", folder)
    wanted = classes.decode(classes.embed([_image()]), None, SIZE)
    found = other.decode(other.embed([_image()]), None, SIZE)
    assert found.masks.shape == (1, 4, *SIZE) and torch.allclose(found.masks, wanted.masks, atol=1e-4)


@torch.inference_mode()
def test_the_default_model_and_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_methods, "CACHE", tmp_path)
    config = BackboneConfig(precision="fp32", runtime="openvino")
    quick, notice = Loader().get_or_fallback("segmed", config)
    assert notice == "" and quick.version.endswith("-openvino-fp32")
    plain = Loader().get("segmed", BackboneConfig())
    for prompt in (BOX, CLICK):
        wanted = plain.decode(plain.embed([_image()]), [[prompt]], SIZE).masks
        found = quick.decode(quick.embed([_image()]), [[prompt]], SIZE).masks
        assert ((found > 0) == (wanted > 0)).float().mean() > 0.999
    (blob,) = (tmp_path / "openvino").glob("network-fp32-*.blob")
    told: list[str] = []
    compile_method(plain, "fp32", tmp_path / "openvino", told.append)
    assert not any("compiling" in text for text in told)
    blob.write_bytes(blob.read_bytes()[:1000])  # cut off, as by a full disk
    compile_method(plain, "fp32", tmp_path / "openvino", told.append)
    assert sum("compiling" in text for text in told) == 1
    assert blob.stat().st_size > 1000


def test_other_masks_are_refused_and_pytorch_answers(
    plain: Sam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = Compiler.compile

    def wrong(self: Compiler, graph, precision):  # type: ignore[no-untyped-def]
        run = right(self, graph, precision)
        return lambda *inputs: tuple(t.flip(-1) for t in run(*inputs))

    monkeypatch.setattr(compiled_methods, "CACHE", tmp_path)
    monkeypatch.setattr(Compiler, "compile", wrong)
    source = str(save_folder(tiny_sam(), tmp_path / "sam"))
    segmenter, notice = Loader().get_or_fallback("sam", BackboneConfig(source, runtime="openvino"))
    assert "runs on PyTorch and not on openvino" in notice and "0.99 is needed" in notice
    assert "openvino" not in segmenter.version
    assert segmenter.embed([_image()]).features.shape[-1] == 16


def test_methods_without_graphs_say_why_and_run_on_pytorch() -> None:
    segmenter, notice = Loader().get_or_fallback("classical", BackboneConfig(runtime="openvino"))
    assert notice == ""  # it needs no network, so nothing is missing
    with pytest.raises(ValueError, match="no graph of this method: it is no network"):
        segmenter.graphs()


def test_the_setting_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ServerSettings.from_conf({"runtime": "openvino"})
    assert settings.backbones["segmed"].runtime == "openvino"
    with pytest.raises(ValueError, match="Choose one of torch, openvino"):
        ServerSettings.from_conf({"runtime": "tensorrt"})
    monkeypatch.setattr("segmed.methods.base.backbone.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'segmed\[openvino\]'"):
        ServerSettings.from_conf({"runtime": "openvino"})


def test_openvino_reports_nothing() -> None:
    """Its telemetry package would send each conversion to Google Analytics."""
    program = (
        "from segmed.inference.runtimes.library import openvino; openvino();"
        "import openvino.tools.ovc.telemetry_utils as told; print(told.tm.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "openvino.tools.ovc.telemetry_stub"
