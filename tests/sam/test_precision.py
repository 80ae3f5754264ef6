"""Choice of the encoder's number format and its preparation for inference."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from segmed.sam.cpu import dtype, number_format, precision
from segmed.sam.cpu.attention import FastVisionAttention
from segmed.sam.cpu.dtype import cpu_has_bf16, encoder_dtype
from segmed.sam.cpu.precision import prepare_encoder
from torch import nn
from transformers import SamVisionConfig
from transformers.models.sam.modeling_sam import SamVisionEncoder

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def stock() -> nn.Module:
    torch.manual_seed(0)
    config = SamVisionConfig(
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=2,
        mlp_dim=128,
        output_channels=32,
        image_size=176,
        window_size=4,
        global_attn_indexes=[2],
        attn_implementation="sdpa",
    )
    encoder = SamVisionEncoder(config)
    for parameter in encoder.parameters():
        if parameter.ndim > 1:
            nn.init.trunc_normal_(parameter, std=0.1)
    return encoder.eval()


def features(encoder: nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return encoder(images).last_hidden_state.float()


@pytest.mark.parametrize("value", ["fp16", "", "BF16"])
def test_unknown_precision_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match=rf"{value!r}; allowed are 'auto', 'bf16', 'fp32'; use 'auto'"):
        encoder_dtype(CPU, value)
    with pytest.raises(ValueError, match="allowed are"):
        prepare_encoder(nn.Identity(), CPU, value)


def test_dtype_follows_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert encoder_dtype(CPU, "bf16") is torch.bfloat16
    assert encoder_dtype(CPU, "fp32") is torch.float32
    monkeypatch.setattr(dtype, "cpu_has_bf16", lambda: True)
    assert encoder_dtype(CPU) is torch.bfloat16
    monkeypatch.setattr(dtype, "cpu_has_bf16", lambda: False)
    assert encoder_dtype(CPU) is torch.float32
    assert encoder_dtype(torch.device("mps")) is torch.float32
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert encoder_dtype(torch.device("cuda")) is torch.float32


@pytest.mark.parametrize(
    ("flags", "expected"), [("fma avx512_bf16 gfni", True), ("amx_tile amx_bf16", True), ("avx512f", False)]
)
def test_cpuinfo_is_the_fallback(
    flags: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(cpu_has_bf16(), bool)
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported", raising=False)
    info = tmp_path / "cpuinfo"
    info.write_text(f"flags : {flags}\n")
    monkeypatch.setattr(number_format, "_CPUINFO", info)
    assert cpu_has_bf16() is expected
    monkeypatch.setattr(number_format, "_CPUINFO", tmp_path / "missing")
    assert cpu_has_bf16() is False


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("small_chunks", [False, True])
def test_prepared_encoder_agrees_with_stock(
    stock: nn.Module, batch: int, small_chunks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if small_chunks:
        monkeypatch.setattr(precision, "_TOKENS_PER_THREAD", 7)
    images = torch.randn(batch, 3, 176, 176, generator=torch.Generator().manual_seed(1))
    expected = features(stock, images)

    full = prepare_encoder(copy.deepcopy(stock).train(), CPU, "fp32")
    result = features(full, images)
    assert (result - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert not full.training and full.state_dict().keys() == stock.state_dict().keys()

    half = prepare_encoder(copy.deepcopy(stock), "cpu", "bf16")
    result = features(half, images)
    assert nn.functional.cosine_similarity(result.flatten(), expected.flatten(), dim=0) >= 0.999
    assert any(isinstance(module, FastVisionAttention) for module in half.modules())


def test_sensitive_parts_stay_in_fp32(stock: nn.Module) -> None:
    half = prepare_encoder(copy.deepcopy(stock), CPU, "bf16")
    layer = half.layers[0]
    assert layer.attn.qkv.weight.dtype is layer.mlp.lin1.weight.dtype is torch.bfloat16
    assert torch.equal(layer.layer_norm1.weight, stock.layers[0].layer_norm1.weight)
    assert torch.equal(half.pos_embed, stock.pos_embed)
    assert half.pos_embed.dtype is torch.float32


def test_preparing_again_changes_the_precision(stock: nn.Module) -> None:
    images = torch.randn(1, 3, 176, 176)
    encoder = prepare_encoder(copy.deepcopy(stock), CPU, "bf16")
    first = features(encoder, images)
    assert torch.equal(features(prepare_encoder(encoder, CPU, "bf16"), images), first)
    again = prepare_encoder(encoder, CPU, "fp32")
    assert {parameter.dtype for parameter in again.parameters()} == {torch.float32}
    assert nn.functional.cosine_similarity(features(again, images).flatten(), first.flatten(), dim=0) >= 0.999


def test_encoder_without_position_embedding() -> None:
    config = SamVisionConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        mlp_dim=64,
        output_channels=8,
        image_size=64,
        use_abs_pos=False,
        attn_implementation="sdpa",
    )
    encoder = prepare_encoder(SamVisionEncoder(config), CPU, "bf16")
    assert features(encoder, torch.randn(1, 3, 64, 64)).shape == (1, 8, 4, 4)
