"""EfficientViT as the image encoder of a SAM: the models EfficientViT-SAM L0 to XL1.

Sources: Cai et al., EfficientViT: Lightweight Multi-Scale Attention for High-Resolution Dense Prediction
(ICCV 2023); Zhang et al., EfficientViT-SAM: Accelerated Segment Anything Model Without Accuracy Loss (2024).

As in `tiny_vit`, batch normalisation is part of the convolutions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import SamVisionConfig

_EPS = 1e-15


class EfficientVitEncoder(nn.Module):
    """The encoder, with the interface of transformers' `SamVisionEncoder`.

    Args:
        config: Configuration with `efficient_vit`: `stages`, a list of lists of blocks, and `neck`, a list of
            blocks; see `block_of` for a block.
    """

    def __init__(self, config: SamVisionConfig) -> None:
        from transformers.models.sam.modeling_sam import SamLayerNorm

        super().__init__()
        self.config = config
        shape, out = config.efficient_vit, config.output_channels
        self.stages = nn.ModuleList(
            nn.Sequential(*(block_of(block, n == 0) for n, block in enumerate(stage)))
            for stage in shape["stages"]
        )
        self.neck = EfficientVitNeck([stage[-1]["out"] for stage in shape["stages"]], shape["neck"], out)
        self.norm = SamLayerNorm(out, data_format="channels_first")

    def forward(self, pixel_values: Tensor, **_: object) -> Any:
        """Encode images (B, 3, S, S); `last_hidden_state` is (B, C, S / patch, S / patch)."""
        from transformers.models.sam.modeling_sam import SamVisionEncoderOutput

        x, scales = pixel_values.to(self.norm.weight.dtype), []
        for stage in self.stages:
            x = stage(x)
            scales.append(x)
        return SamVisionEncoderOutput(last_hidden_state=self.norm(self.neck(scales[-3:])))


class EfficientVitNeck(nn.Module):
    """The sum of the last three scales at the finest of them, refined by residual blocks.

    Args:
        channels: Channels of all stages.
        blocks: The residual blocks.
        out: Channels of the output.
    """

    def __init__(self, channels: Sequence[int], blocks: Sequence[Mapping[str, Any]], out: int) -> None:
        super().__init__()
        width = blocks[0]["in"]
        self.inputs = nn.ModuleList(nn.Conv2d(c, width, 1) for c in reversed(channels[-3:]))
        self.middle = nn.ModuleList(block_of(block, False) for block in blocks)
        self.output = nn.Conv2d(width, out, 1)

    def forward(self, scales: Sequence[Tensor]) -> Tensor:
        """Merge three scales, the finest first."""
        size = scales[0].shape[2:]
        parts = []
        for project, scale in zip(self.inputs, reversed(scales), strict=True):
            x = project(scale)
            if x.shape[2:] != size:
                x = F.interpolate(x.float(), size, mode="bicubic", align_corners=False).to(x.dtype)
            parts.append(x)
        x = torch.stack(parts).sum(0)
        for block in self.middle:
            x = block(x)
        return self.output(x)


def block_of(block: Mapping[str, Any], halves: bool) -> nn.Module:
    """Build a block.

    Args:
        block: `kind` (`stem`, `res`, `fmb`, `mb` or `att`), channels `in`, `hidden` and `out`, and for `att`
            the channels `dim` of a head and the `kernel` of its second scale.
        halves: Whether the block halves the scale, and then has no shortcut.

    Raises:
        ValueError: The kind is unknown.
    """
    kind, stride = block["kind"], 2 if halves else 1
    if kind == "stem":
        return Stem(block["in"], block["out"])
    if kind == "att":
        return AttentionBlock(block["out"], block["hidden"], block["dim"], block["kernel"])
    if kind not in ("res", "fmb", "mb"):
        raise ValueError(f"{kind!r} is no block of an EfficientViT; it has stem, res, fmb, mb and att.")
    return ConvBlock(kind, block["in"], block["hidden"], block["out"], stride)


class Stem(nn.Module):
    """A convolution that halves the scale."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.conv(x))


class ConvBlock(nn.Module):
    """Two or three convolutions with GELU between them, beside the identity unless the scale changes.

    Args:
        kind: `res` (3×3, 3×3), `fmb` (3×3, 1×1) or `mb` (1×1, 3×3 of each channel, 1×1).
        channels: Of the input.
        hidden: Between the convolutions.
        out: Of the output.
        stride: Of the first 3×3 convolution.
    """

    def __init__(self, kind: str, channels: int, hidden: int, out: int, stride: int) -> None:
        super().__init__()
        self.has_shortcut = stride == 1
        layers = {
            "res": [(channels, hidden, 3, stride, 1), (hidden, out, 3, 1, 1)],
            "fmb": [(channels, hidden, 3, stride, 1), (hidden, out, 1, 1, 1)],
            "mb": [(channels, hidden, 1, 1, 1), (hidden, hidden, 3, stride, hidden), (hidden, out, 1, 1, 1)],
        }[kind]
        self.convs = nn.ModuleList(nn.Conv2d(i, o, k, s, k // 2, groups=g) for i, o, k, s, g in layers)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for n, conv in enumerate(self.convs):
            y = conv(y if not n else F.gelu(y))
        return x + y if self.has_shortcut else y


class AttentionBlock(nn.Module):
    """Linear attention at two scales and a convolutional block, each beside the identity.

    Args:
        width: Channels of input and output.
        hidden: Channels inside the convolutional block.
        dim: Channels of a head.
        kernel: Of the convolution that makes the second scale.
    """

    def __init__(self, width: int, hidden: int, dim: int, kernel: int) -> None:
        super().__init__()
        self.dim = dim
        self.qkv = nn.Conv2d(width, 3 * width, 1, bias=False)
        self.near = nn.Conv2d(3 * width, 3 * width, kernel, padding=kernel // 2, groups=3 * width, bias=False)
        self.mix = nn.Conv2d(3 * width, 3 * width, 1, groups=3 * width // dim, bias=False)
        self.proj = nn.Conv2d(2 * width, width, 1)
        self.local = ConvBlock("mb", width, hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x)
        scales = [_attend(part, self.dim) for part in (qkv, self.mix(self.near(qkv)))]
        return self.local(x + self.proj(torch.cat(scales, 1)))


def _attend(qkv: Tensor, dim: int) -> Tensor:
    """Linear attention with ReLU as its kernel, (B, 3 C, H, W) → (B, C, H, W)."""
    # out = q (kᵀ v) / q (kᵀ 1), whose cost grows with the number of tokens and not with its square
    q, k, v = qkv.flatten(2).unflatten(1, (-1, 3 * dim)).float().split(dim, 2)  # (B, heads, dim, H W)
    q, k = q.relu(), k.relu()
    weighted = (v @ k.transpose(2, 3)) @ q
    total = k.sum(3, keepdim=True).transpose(2, 3) @ q
    return (weighted / (total + _EPS)).flatten(1, 2).unflatten(2, qkv.shape[2:]).to(qkv.dtype)
