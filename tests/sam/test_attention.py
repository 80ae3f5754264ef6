"""The fast vision attention gives the results of the stock one."""

from __future__ import annotations

import copy

import pytest
import torch
from segmed.sam.cpu import attention
from segmed.sam.cpu.attention import FastVisionAttention, use_fast_attention
from torch import nn
from transformers import SamVisionConfig
from transformers.models.sam.modeling_sam import SamVisionEncoder, SamVisionSdpaAttention


def make_config(**changes: object) -> SamVisionConfig:
    values: dict[str, object] = {
        "hidden_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "mlp_dim": 128,
        "output_channels": 32,
        "image_size": 176,
        "window_size": 4,
        "global_attn_indexes": [2],
        "attn_implementation": "sdpa",
    }
    return SamVisionConfig(**(values | changes))


def randomise(module: nn.Module) -> nn.Module:
    """Random weights large enough for the relative positions to matter: stock initialisation is zero."""
    for parameter in module.parameters():
        if parameter.ndim > 1:
            nn.init.trunc_normal_(parameter, std=0.1)
    return module.eval()


def make_layers(
    window: int, dtype: torch.dtype = torch.float32, **changes: object
) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    stock = randomise(SamVisionSdpaAttention(make_config(**changes), window_size=window)).to(dtype)
    fast = copy.deepcopy(stock)
    use_fast_attention(fast)
    return stock, fast


def assert_close(result: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-4) -> None:
    assert result.shape == expected.shape and result.dtype == expected.dtype
    assert (result - expected).abs().max() <= tolerance * expected.abs().max()


def cosine(result: torch.Tensor, expected: torch.Tensor) -> float:
    return float(nn.functional.cosine_similarity(result.float().flatten(), expected.flatten(), dim=0))


@pytest.mark.parametrize(
    ("window", "shape", "changes"),
    [
        (0, (1, 11, 11, 64), {}),
        (0, (2, 11, 11, 64), {}),
        (4, (18, 4, 4, 64), {}),
        (4, (2, 7, 5, 64), {}),
        (0, (2, 9, 13, 64), {"use_rel_pos": False}),
        (0, (1, 24, 40, 64), {}),
        (0, (1, 5, 5, 60), {"hidden_size": 60, "num_attention_heads": 3, "qkv_bias": False}),
    ],
)
@pytest.mark.parametrize("small_chunks", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layer_equals_stock(
    window: int,
    shape: tuple[int, ...],
    changes: dict[str, object],
    small_chunks: bool,
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if small_chunks:
        # Uneven chunks of windows, of heads and of queries.
        monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
        monkeypatch.setattr(attention, "_TOKENS_PER_THREAD", 80)
        monkeypatch.setattr(attention, "_LOGITS_PER_THREAD", 700)
    stock, fast = make_layers(window, **changes)
    tokens = torch.randn(shape)
    with torch.inference_mode():
        expected, _ = stock(tokens)
        result, weights = fast.to(dtype)(tokens.to(dtype))
    assert weights is None
    if dtype is torch.float32:
        assert_close(result, expected)
    else:
        assert result.dtype is dtype
        assert cosine(result, expected) >= 0.999


def test_relative_positions_matter() -> None:
    _, fast = make_layers(0)
    tokens = torch.randn(1, 11, 11, 64)
    with torch.inference_mode():
        with_bias, _ = fast(tokens)
        fast.use_rel_pos = False
        without_bias, _ = fast(tokens)
    assert (with_bias - without_bias).abs().max() > 0.01 * with_bias.abs().max()


def test_common_part_of_the_keys_costs_no_precision() -> None:
    """What all keys share cancels in the softmax; removing it before bf16 logits are formed keeps them
    exact."""
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 144, 32).bfloat16().unbind(0)
    key = key + 4 * torch.randn(2, 1, 32).bfloat16()
    expected = attention._attend_sdpa(query.float(), key.float(), value.float(), None, 1.0)
    errors = [
        (attention._attend_bf16(query, keys, value, None) - expected).square().mean()
        for keys in (attention._centred(key), key)
    ]
    assert errors[0] < 0.5 * errors[1]


@pytest.mark.parametrize("batch", [1, 2])
def test_encoder_equals_stock(batch: int) -> None:
    torch.manual_seed(0)
    stock = randomise(SamVisionEncoder(make_config()))
    fast = copy.deepcopy(stock)
    use_fast_attention(fast)
    use_fast_attention(fast)
    assert fast.state_dict().keys() == stock.state_dict().keys()
    images = torch.randn(batch, 3, 176, 176)
    with torch.inference_mode():
        expected = stock(images, output_hidden_states=True)
        result = fast(images, output_hidden_states=True)
        half = fast.to(torch.bfloat16)(images.bfloat16()).last_hidden_state
    assert_close(result.last_hidden_state, expected.last_hidden_state)
    assert len(result.hidden_states) == len(expected.hidden_states)
    assert cosine(half, expected.last_hidden_state) >= 0.999


@pytest.mark.parametrize("window", [0, 4])
def test_gradients_equal_stock(window: int) -> None:
    stock, fast = make_layers(window)
    tokens = torch.randn(2, 4, 4, 64) if window else torch.randn(1, 11, 11, 64)
    grads = []
    for layer in (stock, fast):
        inputs = tokens.clone().requires_grad_()
        layer.train()(inputs)[0].square().sum().backward()
        grads.append([inputs.grad, *(parameter.grad for parameter in layer.parameters())])
    for result, expected in zip(grads[1], grads[0], strict=True):
        assert_close(result, expected)


def test_frozen_layer_passes_gradients_to_an_adapter() -> None:
    _, fast = make_layers(4)
    fast.requires_grad_(False)
    fast.qkv = nn.Sequential(fast.qkv, nn.Linear(192, 192))
    tokens = torch.randn(2, 4, 4, 64)
    with torch.no_grad():
        expected, _ = fast(tokens)
    result, _ = fast(tokens)
    assert_close(result.detach(), expected)
    result.sum().backward()
    assert fast.qkv[1].weight.grad.abs().sum() > 0


def test_autocast_and_frozen_weights_run() -> None:
    stock, fast = make_layers(0)
    fast.requires_grad_(False)
    tokens = torch.randn(1, 11, 11, 64)
    with torch.inference_mode():
        expected, _ = stock(tokens)
    assert_close(fast(tokens)[0], expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert cosine(fast(tokens)[0], expected) >= 0.999


def test_class_swap_keeps_hooks_and_type() -> None:
    stock, _ = make_layers(4)
    calls: list[int] = []
    stock.register_forward_hook(lambda *_: calls.append(1))
    use_fast_attention(stock)
    with torch.inference_mode():
        stock(torch.randn(1, 4, 4, 64))
    assert isinstance(stock, FastVisionAttention) and isinstance(stock, SamVisionSdpaAttention)
    assert calls == [1]


def test_module_without_attention_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Linear that holds no SAM vision attention.*vision encoder"):
        use_fast_attention(nn.Linear(2, 2))
    eager = SamVisionEncoder(make_config(attn_implementation="eager"))
    with pytest.raises(ValueError, match="attn_implementation='sdpa'"):
        use_fast_attention(eager)
