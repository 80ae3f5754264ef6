"""Trained weights on shared base weights: each method is served as it was saved, and nobody else is changed
by it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from segmed.imaging.prompts import SlicePrompt
from segmed.inference.loading import BackboneConfig, Loader
from segmed.methods import METHODS
from segmed.methods.base.segmenter import Segmenter
from segmed.methods.base.trainable import TrainableSegmenter, save_trained
from segmed.sam.weights import load_sam, weights_version
from tiny_sam import save_folder, tiny_sam

TRAINED = [
    name
    for name, method in METHODS.items()
    if method.training and method.needs_backbone and not method.detects and name != "segmed"
]
IMAGE = np.random.default_rng(0).integers(0, 255, (70, 90), np.uint8)
BOX = SlicePrompt(box=(20, 15, 60, 50))


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> BackboneConfig:
    return BackboneConfig(str(save_folder(tiny_sam(), tmp_path_factory.mktemp("base"))), precision="fp32")


def _logits(segmenter: Segmenter) -> torch.Tensor:
    with torch.no_grad():
        return segmenter.decode(segmenter.embed([IMAGE]), [[BOX]], (70, 90)).masks


def _save(name: str, backbone: BackboneConfig, folder: Path, seed: int = 0) -> TrainableSegmenter:
    """A method whose trained weights are all off their start."""
    training = METHODS[name].training
    assert training is not None
    base = load_sam(backbone.source)
    version = weights_version(base)
    method: TrainableSegmenter = training.kind(base, training.config(), "x")
    torch.manual_seed(seed)
    with torch.no_grad():
        for key, parameter in method.named_parameters():
            if key in method.trained_names():
                parameter.add_(0.02 * torch.randn_like(parameter))
    save_trained(method.eval(), folder, version)
    return method


@pytest.mark.parametrize("name", TRAINED)
def test_what_is_served_is_what_was_saved(name: str, backbone: BackboneConfig, tmp_path: Path) -> None:
    loader = Loader()
    before = {n: _logits(loader.get(n, backbone)) for n in ("sam", "medsam")}
    untrained = loader.get(name, backbone)
    wanted = _logits(_save(name, backbone, tmp_path / "one"))
    served = loader.get(name, backbone, trained=tmp_path / "one")
    assert (_logits(served) - wanted).abs().max() <= 2e-4 * wanted.abs().max()
    assert not torch.allclose(_logits(served), _logits(untrained), atol=1e-3)
    _save(name, backbone, tmp_path / "two", seed=1)
    other = loader.get(name, backbone, trained=tmp_path / "two")
    assert len({s.version for s in (untrained, served, other)}) == 3
    assert (_logits(served) - wanted).abs().max() <= 2e-4 * wanted.abs().max(), (
        "versions share no trained weight"
    )
    for n, logits in before.items():
        assert torch.equal(_logits(loader.get(n, backbone)), logits), "base weights are left as they are"
    loader.forget(tmp_path / "one")
    assert loader.get(name, backbone, trained=tmp_path / "two") is other
    assert loader.get(name, backbone, trained=tmp_path / "one") is not served


def test_damaged_versions_give_way_to_the_untrained_method_or_are_refused(
    backbone: BackboneConfig, tmp_path: Path
) -> None:
    for name in ("medsam", "lora"):
        _save(name, backbone, tmp_path / name)
        (tmp_path / name / "weights.safetensors").write_bytes(b"cut off")
    loader = Loader()
    plain, warning = loader.get_or_fallback("medsam", backbone, trained=tmp_path / "medsam")
    assert plain is loader.get("medsam", backbone)
    assert "The weights that were trained here cannot be used" in warning
    with pytest.raises(ValueError, match="cut off or damaged"):
        loader.get_or_fallback("lora", backbone, trained=tmp_path / "lora")


@pytest.mark.parametrize("name", ["gafl", "featup", "lora", "adapter"])
def test_masks_in_bf16_are_those_in_fp32(name: str) -> None:
    """On the embedded weights, whose masks mean something."""
    y, x = np.mgrid[:96, :96]
    image = (60 + 120 * ((x - 50) ** 2 + (y - 45) ** 2 < 24**2)).astype(np.uint8)
    masks = []
    for precision in ("fp32", "bf16"):
        method = Loader().get(name, BackboneConfig("segmed-tiny", precision=precision))
        with torch.inference_mode():
            embedding = method.embed([image])
            found = method.decode(embedding, [[SlicePrompt(box=(26, 21, 74, 69))]], (96, 96)).masks
        masks.append(found[0, 0] > 0)
    overlap = 2 * (masks[0] & masks[1]).sum() / (masks[0].sum() + masks[1].sum())
    assert overlap >= 0.99
