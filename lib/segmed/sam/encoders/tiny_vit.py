"""TinyViT as the image encoder of a SAM: MobileSAM and LiteMedSAM.

Sources: Wu et al., TinyViT: Fast Pretraining Distillation for Small Vision Transformers (ECCV 2022), for the
blocks; Zhang et al., Faster Segment Anything (2023), for the last stage at the scale of the third one and for
SAM's neck behind it; LiteMedSAM (Ma et al., CVPR 2024 challenge Segment Anything in Medical Images on Laptop)
for the stem without strides at 256 px.

Batch normalisation is not kept as a layer: its published statistics are part of the convolutions, see
`segmed.sam.checkpoints.tiny_vit_keymap`. They would be useless statistics of a few slices in a fine-tuning.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from segmed.sam.cpu.bands import separable, tokenwise

if TYPE_CHECKING:
    from transformers import SamVisionConfig

_EXPANSION = 4  # of the channels inside MBConv blocks and MLPs


@dataclass(frozen=True)
class TinyVitShape:
    """The sizes of a TinyViT.

    Attributes:
        widths: Channels of the four stages; the first one is convolutional.
        depths: Blocks of the stages.
        heads: Attention heads of the last three stages.
        windows: Sides of the windows of attention in tokens, of the last three stages.
        stem: Kernel of the two convolutions of the stem: 3 with strides of 2 (MobileSAM), 1 without
            (LiteMedSAM).
    """

    widths: tuple[int, ...] = (64, 128, 160, 320)
    depths: tuple[int, ...] = (2, 2, 6, 2)
    heads: tuple[int, ...] = (4, 5, 10)
    windows: tuple[int, ...] = (7, 14, 7)
    stem: int = 3

    @property
    def patch_size(self) -> int:
        """Pixels per side of a token of the last stage: the second and third stage halve the scale."""
        return 16 if self.stem == 3 else 4

    def as_config(self) -> dict[str, Any]:
        """The same as entries of a configuration file."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}

    @classmethod
    def of(cls, raw: dict[str, Any]) -> TinyVitShape:
        """From entries of a configuration file.

        Raises:
            TypeError: An entry is unknown.
            ValueError: The sizes do not fit each other.
        """
        sizes: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in raw.items()}
        shape = cls(**sizes)
        lengths = [len(part) for part in (shape.widths, shape.depths, shape.heads, shape.windows)]
        fits = all(width % heads == 0 for width, heads in zip(shape.widths[1:], shape.heads, strict=False))
        if lengths != [4, 4, 3, 3] or shape.stem not in (1, 3) or not fits:
            raise ValueError(
                f"{raw} is no TinyViT: it has 4 widths and depths, 3 numbers of heads that divide the widths "
                "of the last stages, 3 windows, and a stem of 1 or 3."
            )
        return shape


class TinyVitEncoder(nn.Module):
    """The encoder, with the interface of transformers' `SamVisionEncoder`.

    Args:
        config: Configuration with `tiny_vit`, the entries of a `TinyVitShape`.
    """

    def __init__(self, config: SamVisionConfig) -> None:
        from transformers.models.sam.modeling_sam import SamVisionNeck

        super().__init__()
        self.config = config
        shape = TinyVitShape.of(config.tiny_vit)
        self.patch_embed = _Stem(config.num_channels, shape.widths[0], shape.stem)
        self.stages = nn.ModuleList(
            _Stage(n, shape, following) for n, following in enumerate([*shape.widths[1:], 0])
        )
        self.neck = SamVisionNeck(config)
        self._recompute = False

    def activation_checkpointing_enable(self) -> None:
        """From now on, recompute the activations of each block in the backward pass."""
        self._recompute = True

    def forward(self, pixel_values: Tensor, **_: object) -> Any:
        """Encode images (B, 3, S, S); `last_hidden_state` is (B, C, S / patch, S / patch)."""
        from transformers.models.sam.modeling_sam import SamVisionEncoderOutput

        dtype = self.neck.conv1.weight.dtype
        x = self.patch_embed(pixel_values.to(dtype, memory_format=torch.channels_last))
        for stage in self.stages:
            x = stage(x, self._recompute and self.training)
        return SamVisionEncoderOutput(last_hidden_state=self.neck(x.permute(0, 2, 3, 1)))


class _Pointwise(nn.Conv2d):
    """A 1×1 convolution as a product of matrices: with channels last, nothing has to be rearranged."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(channels, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return _channels_first(F.linear(_channels_last(x), self.weight[:, :, 0, 0], self.bias))


class _Stem(nn.Module):
    """Two convolutions from pixels to the channels of the first stage."""

    def __init__(self, channels: int, width: int, kernel: int) -> None:
        super().__init__()
        stride, padding = (2, 1) if kernel == 3 else (1, 0)
        self.conv1 = nn.Conv2d(channels, width // 2, kernel, stride, padding)
        self.conv2 = nn.Conv2d(width // 2, width, kernel, stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(_gelu(self.conv1(x)))


class _Stage(nn.Module):
    """Blocks at one scale; the transition to `following` channels, if any, belongs to them."""

    def __init__(self, index: int, shape: TinyVitShape, following: int) -> None:
        super().__init__()
        width, depth = shape.widths[index], shape.depths[index]
        if index == 0:
            self.layers = nn.ModuleList(_MBConv(width) for _ in range(depth))
        else:
            heads, window = shape.heads[index - 1], shape.windows[index - 1]
            self.layers = nn.ModuleList(_Block(width, heads, window) for _ in range(depth))
        # the last stage keeps the scale, so that a token covers as many pixels as one of SAM's ViT
        stride = 1 if index == len(shape.widths) - 2 else 2
        self.downsample = _Transition(width, following, stride) if following else nn.Identity()

    def forward(self, x: Tensor, recompute: bool) -> Tensor:
        for block in self.layers:
            x = checkpoint(block, x, use_reentrant=False) if recompute else block(x)
        return self.downsample(x)


class _MBConv(nn.Module):
    """Inverted bottleneck (Sandler et al., MobileNetV2, 2018), (B, C, H, W) → (B, C, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = _EXPANSION * width
        self.conv1 = _Pointwise(width, hidden)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.conv3 = _Pointwise(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return _gelu(x + _separable(x, self.conv1, self.conv2, self.conv3))


class _Transition(nn.Module):
    """Change of channels and scale, (B, C, H, W) → (B, following, H / stride, W / stride)."""

    def __init__(self, width: int, following: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _Pointwise(width, following)
        self.conv2 = nn.Conv2d(following, following, 3, stride, 1, groups=following)
        self.conv3 = _Pointwise(following, following)

    def forward(self, x: Tensor) -> Tensor:
        return _separable(x, self.conv1, self.conv2, self.conv3)


class _Block(nn.Module):
    """Attention in windows, a depthwise convolution, and an MLP: (B, C, H, W) → (B, C, H, W)."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.attn = _WindowAttention(width, heads, window)
        self.local_conv = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.mlp = _Mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.local_conv(x + _channels_first(self.attn(_channels_last(x))))
        return x + _channels_first(self.mlp(_channels_last(x)))


class _Mlp(nn.Module):
    """Normalisation and two linear layers on each token, (..., C) → (..., C)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, _EXPANSION * width)
        self.fc2 = nn.Linear(_EXPANSION * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return tokenwise(x, lambda part: self.fc2(_gelu(self.fc1(self.norm(part)))), self.fc1.out_features)


class _WindowAttention(nn.Module):
    """Attention within windows of w × w tokens, with a learned bias for each distance between two tokens.

    A token's query, key and value lie beside each other head by head, as in the published weights.
    """

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window**2))

    def forward(self, x: Tensor) -> Tensor:
        """Attend, (B, H, W, C) → (B, H, W, C)."""
        batch, height, width, channels = x.shape
        w = self.window
        if (height, width) != (w, w):
            # Windows that reach over the edge hold zeros, which are normalised and attended to like tokens:
            # the published weights were trained with them.
            x = F.pad(x, (0, 0, 0, -width % w, 0, -height % w))
        rows, columns = x.shape[1] // w, x.shape[2] // w
        x = x.view(batch, rows, w, columns, w, channels).transpose(2, 3).reshape(-1, w * w, channels)
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (self.heads, -1)).transpose(1, 2).chunk(3, dim=-1)
        bias = self.attention_biases[:, _distances(w, x.device)].to(x.dtype)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None])
        x = self.proj(x.transpose(1, 2).reshape(-1, w * w, channels))
        x = x.view(batch, rows, columns, w, w, channels).transpose(2, 3)
        return x.reshape(batch, rows * w, columns * w, channels)[:, :height, :width]


def _separable(x: Tensor, before: nn.Module, depthwise: nn.Conv2d, behind: nn.Module) -> Tensor:
    """Two pointwise convolutions around a depthwise one, with GELU between them."""
    return separable(x, lambda part: _gelu(before(part)), depthwise, lambda part: behind(_gelu(part)))


def _distances(window: int, device: torch.device) -> Tensor:
    """Which bias belongs to two tokens of a window: rows · w + columns between them, (w², w²)."""
    place = torch.arange(window, device=device)
    apart = (place[:, None] - place).abs()
    return (apart[:, None, :, None] * window + apart[None, :, None, :]).reshape(window**2, window**2)


def _gelu(x: Tensor) -> Tensor:
    """GELU of a tensor that nothing else needs: in place unless gradients are computed.

    At the first scales, memory for the result would cost more than the function.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return F.gelu(x)
    gelu_: Tensor = torch.ops.aten.gelu_(x)
    return gelu_


def _channels_last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


def _channels_first(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)
