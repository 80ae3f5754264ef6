"""SAM-Med2D: published names of its adapters, and their formula."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from segmed.methods.sam.medsam import MedSam
from segmed.sam.cpu.precision import prepare_encoder
from segmed.sam.preparation import SAM_MED2D
from segmed.sam.weights import load_sam
from tiny_sam import tiny_sam, to_original
from torch import Tensor


def published() -> dict[str, Tensor]:
    state, generator = to_original(tiny_sam()), torch.Generator().manual_seed(1)
    for n in range(4):
        adapter = f"image_encoder.blocks.{n}.Adapter."
        for name, *size in (
            ("channel.0.weight", 32, 128),
            ("channel.2.weight", 128, 32),
            ("spatial.0.weight", 128, 128, 3, 3),
            ("spatial.2.weight", 128, 128, 4, 4),
            ("norm.weight", 128),
            ("norm.bias", 128),
        ):
            state[adapter + name] = torch.randn(size, generator=generator) * 0.1
    return state


def plain_adapter(state: dict[str, Tensor], n: int, x: Tensor) -> Tensor:
    """Tokens (B, H, W, C) through the adapter of layer n."""
    w = {
        k.split(".Adapter.")[1]: t for k, t in state.items() if k.startswith(f"image_encoder.blocks.{n}.Adap")
    }
    maps = x.permute(0, 3, 1, 2)
    share = F.adaptive_avg_pool2d(maps, 1).flatten(1)
    share = (F.relu(share @ w["channel.0.weight"].T) @ w["channel.2.weight"].T).sigmoid()
    inner = F.relu(F.conv2d(maps * share[..., None, None], w["spatial.0.weight"], stride=2, padding=1))
    inner = F.relu(F.conv_transpose2d(inner, w["spatial.2.weight"], stride=2, padding=1))
    return F.layer_norm((maps + inner).permute(0, 2, 3, 1), x.shape[-1:], w["norm.weight"], w["norm.bias"])


def test_each_layer_adds_its_adapter(tmp_path: Path) -> None:
    state = published()
    torch.save({"model": state, "optimizer": 1}, tmp_path / "w.pth")
    model, plain = load_sam(str(tmp_path / "w.pth")), tiny_sam()
    tokens = torch.randn(2, 16, 16, 128)
    with torch.inference_mode():
        for n, layer in enumerate(model.vision_encoder.layers):
            wanted = plain.vision_encoder.layers[n].mlp(tokens) + plain_adapter(state, n, tokens)
            assert (layer.mlp(tokens) - wanted).abs().max() < 1e-4
    assert model.config.vision_config.image_size == 256
    assert MedSam(model).preparation is SAM_MED2D


def test_prepared_encoders_have_their_adapters(tmp_path: Path) -> None:
    torch.save(published(), tmp_path / "w.pth")
    model, image = load_sam(str(tmp_path / "w.pth")), torch.rand(1, 3, 256, 256)
    with torch.inference_mode():
        wanted = model.vision_encoder(image).last_hidden_state
        got = prepare_encoder(model.vision_encoder, "cpu", "fp32")(image).last_hidden_state
        assert (got - wanted).abs().max() < 1e-4
        assert (got - tiny_sam().vision_encoder(image).last_hidden_state).abs().max() > 0.01
