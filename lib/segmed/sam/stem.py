"""A convolutional stem in place of SAM's patch embedding, for small models that learn from few images.

Sources: Xiao et al., Early Convolutions Help Transformers See Better (NeurIPS 2021); the contracting and
expanding path is that of Ronneberger et al., U-Net (MICCAI 2015). On CPUs convolutions also reach more
arithmetic per second than attention does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segmed.sam.encoders.tiny_vit import TinyVitEncoder

if TYPE_CHECKING:
    from transformers import SamConfig, SamModel


class Residual(nn.Module):
    """Two 3×3 convolutions beside the identity: (B, C, H, W) → (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, channels), nn.GroupNorm(8, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.gelu(self.norm2(self.conv1(F.gelu(self.norm1(x))))))


class ConvStem(nn.Module):
    """A stem that halves the image to below the scale of tokens, for context, and returns to it.

    Args:
        channels: Channels of the stages, multiples of 8; each stage halves the scale.
        depths: Residual blocks of the stages.
        levels: Number of stages down to the scale of tokens; further stages add context.
        hidden: Channels of a token.

    Raises:
        ValueError: If `channels` and `depths` differ in length, there are fewer stages than levels, or
            channels are not multiples of 8.
    """

    def __init__(self, channels: Sequence[int], depths: Sequence[int], levels: int, hidden: int) -> None:
        super().__init__()
        if len(channels) != len(depths) or len(channels) < levels or any(c % 8 for c in channels):
            raise ValueError(
                f"stem_channels {list(channels)} and stem_depths {list(depths)} do not make a stem: give at "
                f"least {levels} channels for this patch size, all multiples of 8, and as many depths."
            )
        self.levels = levels
        self.down = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, width, 3, stride=2, padding=1), *(Residual(width) for _ in range(depth))
            )
            for before, width, depth in zip([3, *channels], channels, depths, strict=False)
        )
        deeper = list(zip(channels[levels - 1 :], channels[levels:], strict=False))
        self.lateral = nn.ModuleList(nn.Conv2d(below, width, 1) for width, below in deeper)
        self.up = nn.ModuleList(Residual(width) for width, _ in deeper)
        self.projection = nn.Conv2d(channels[levels - 1], hidden, 1)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Embed images (B, 3, S, S) as float32 tokens (B, S / patch, S / patch, hidden)."""
        x = pixel_values.to(self.projection.weight.dtype, memory_format=torch.channels_last)
        scales = []
        for stage in self.down:
            x = stage(x)
            scales.append(x)
        # U-Net's way up, from the coarsest scale to that of tokens: x_n = Residual(finer_n + upsample(W_n
        # x_{n+1})).
        for n in reversed(range(len(self.up))):
            finer = scales[self.levels - 1 + n]
            x = self.up[n](finer + F.interpolate(self.lateral[n](x), finer.shape[-2:], mode="nearest"))
        return self.projection(x).permute(0, 2, 3, 1).float().contiguous()


def build_sam(config: SamConfig) -> SamModel:
    """Build a SamModel with the encoder that the configuration asks for.

    `vision_config` with `tiny_vit` has a TinyViT, with `efficient_vit` an EfficientViT, with
    `med2d_adapters` the adapters of SAM-Med2D, with
    `stem_channels` a convolutional stem.

    Raises:
        ValueError: If the patch size is not a power of two, or the settings of the stem do not fit it.
    """
    from transformers import SamModel

    model = SamModel(config)
    vision = config.vision_config
    if getattr(vision, "tiny_vit", None):
        model.vision_encoder = TinyVitEncoder(vision)
    if getattr(vision, "efficient_vit", None):
        from segmed.sam.encoders.efficient_vit import EfficientVitEncoder

        model.vision_encoder = EfficientVitEncoder(vision)
    if getattr(vision, "med2d_adapters", False):
        from segmed.sam.encoders.med2d import add_adapters

        add_adapters(model.vision_encoder)
    channels = getattr(vision, "stem_channels", None)
    if channels:
        levels = int(vision.patch_size).bit_length() - 1
        if 2**levels != vision.patch_size:
            raise ValueError(
                f"patch_size {vision.patch_size} does not suit a convolutional stem; give a power of two."
            )
        model.vision_encoder.patch_embed = ConvStem(channels, vision.stem_depths, levels, vision.hidden_size)
    return model
