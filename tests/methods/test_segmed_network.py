"""The network of the default model and its files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from segmed.methods.segmed.encoder import _STAGES, EfficientNetLite0, folded
from segmed.methods.segmed.network import MASKS, PromptNetwork
from segmed.methods.segmed.prompt_channels import CHANNELS
from segmed.methods.segmed.weights import is_network_folder, load_network, network_version, save_network
from torch import Tensor


@pytest.fixture(scope="module")
def network() -> PromptNetwork:
    torch.manual_seed(0)
    return PromptNetwork().eval()


def _published() -> dict[str, Tensor]:
    """Random weights under the names of the published network, batch normalisation and all."""
    torch.manual_seed(1)
    state: dict[str, Tensor] = {}

    def add(conv: str, norm: str, outputs: int, inputs: int, kernel: int) -> None:
        state[f"{conv}.weight"] = torch.randn(outputs, inputs, kernel, kernel) / (inputs * kernel**2) ** 0.5
        for part in ("weight", "running_var"):
            state[f"{norm}.{part}"] = torch.rand(outputs) + 0.5
        for part in ("bias", "running_mean"):
            state[f"{norm}.{part}"] = torch.randn(outputs) * 0.1

    add("_conv_stem", "_bn0", 32, 3, 3)
    inputs, block = 32, 0
    for expansion, outputs, kernel, _, repeats in _STAGES:
        for _ in range(repeats):
            inner = inputs * expansion
            name = f"_blocks.{block}"
            if expansion > 1:
                add(f"{name}._expand_conv", f"{name}._bn0", inner, inputs, 1)
            add(f"{name}._depthwise_conv", f"{name}._bn1", inner, 1, kernel)
            add(f"{name}._project_conv", f"{name}._bn2", outputs, inner, 1)
            inputs, block = outputs, block + 1
    return state


def _same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """TensorFlow's padding."""
    total = max(0, (-(-x.shape[-1] // stride) - 1) * stride + kernel - x.shape[-1])
    return F.pad(x, (total // 2, total - total // 2) * 2)


def _reference(state: dict[str, Tensor], images: Tensor) -> Tensor:
    """The published network computed with its batch normalisation, up to its last block."""

    def normal(x: Tensor, name: str) -> Tensor:
        p = [state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, p[0], p[1], p[2], p[3], eps=1e-3)

    x = F.relu6(normal(F.conv2d(_same(images * 2 - 1, 3, 2), state["_conv_stem.weight"], stride=2), "_bn0"))
    block = 0
    for expansion, _, kernel, stride, repeats in _STAGES:
        for n in range(repeats):
            name, step, entered = f"_blocks.{block}", stride if n == 0 else 1, x
            if expansion > 1:
                x = F.relu6(normal(F.conv2d(x, state[f"{name}._expand_conv.weight"]), f"{name}._bn0"))
            weight = state[f"{name}._depthwise_conv.weight"]
            x = F.conv2d(_same(x, kernel, step), weight, stride=step, groups=len(weight))
            x = F.relu6(normal(x, f"{name}._bn1"))
            x = normal(F.conv2d(x, state[f"{name}._project_conv.weight"]), f"{name}._bn2")
            x = x + entered if x.shape == entered.shape and step == 1 else x
            block += 1
    return x


@torch.no_grad()
def test_folding_keeps_what_the_published_network_computes() -> None:
    encoder = EfficientNetLite0().eval()
    encoder.load_state_dict(folded(_published()))
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    *_, deepest = encoder.late(encoder.early(images)[1])
    assert torch.allclose(deepest, _reference(_published(), images), atol=1e-3, rtol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("size", [64, 96, 128])
def test_shapes_and_ranges(network: PromptNetwork, size: int) -> None:
    images, channels = torch.rand(2, 3, size, size), torch.zeros(2, CHANNELS, size, size)
    logits, quality = network(network.features(images), images, channels)
    assert logits.shape == (2, MASKS, size, size)
    assert quality.shape == (2, MASKS)
    assert ((quality >= 0) & (quality <= 1)).all()


@torch.no_grad()
def test_the_prompt_reaches_the_masks_and_the_image_half_ignores_it(network: PromptNetwork) -> None:
    images = torch.rand(1, 3, 64, 64)
    features = network.features(images)
    one, _ = network(features, images, torch.zeros(1, CHANNELS, 64, 64))
    other, _ = network(features, images, torch.ones(1, CHANNELS, 64, 64))
    assert (one - other).abs().max() > 1e-3
    assert network.encoder.early_parameters()


def test_predicted_iou_does_not_pull_at_the_masks(network: PromptNetwork) -> None:
    images, channels = torch.rand(1, 3, 64, 64), torch.zeros(1, CHANNELS, 64, 64)
    _, quality = network(network.features(images), images, channels)
    quality.sum().backward()
    assert network.masks.weight.grad is None or not network.masks.weight.grad.any()
    network.zero_grad(set_to_none=True)


def test_files_come_back_in_half_precision(network: PromptNetwork, tmp_path: Path) -> None:
    save_network(network, tmp_path)
    assert is_network_folder(tmp_path)
    back = load_network(tmp_path)
    for name, tensor in network.state_dict().items():
        assert torch.allclose(back.state_dict()[name], tensor, atol=1e-3, rtol=1e-3)
    assert network_version(back) == network_version(load_network(tmp_path)) != network_version(network)
    assert {t.dtype for t in load_file(tmp_path / "model.safetensors").values()} == {torch.float16}
    assert not list(tmp_path.glob("*.part"))


def test_damaged_and_foreign_folders_are_refused(network: PromptNetwork, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing"):
        load_network(tmp_path)
    save_network(network, tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="damaged"):
        load_network(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "sam"}))
    assert not is_network_folder(tmp_path)
    with pytest.raises(ValueError, match="does not describe"):
        load_network(tmp_path)
