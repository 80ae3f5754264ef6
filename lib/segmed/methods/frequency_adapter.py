"""The spectrum of an image beside the image itself, through adapters of its own into every layer of SAM's encoder.

Source: Wei et al., I-MedSAM: Implicit Medical Image Segmentation with Segment Anything (2024), frequency adapter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers.models.sam.modeling_sam import SamVisionEncoder

Variant = Literal["amplitude", "phase"]


def spectrum_image(images: Tensor, variant: Variant, first_channel: bool = False) -> Tensor:
    """Amplitude or phase of the 2-D Fourier transform, low frequencies in the middle, stretched to [0, 1] per image.

    Args:
        images: (B, 3, S, S)
        variant: `amplitude`, or `phase` as in the authors' ablation.
        first_channel: transform the first channel, as the authors' code does, instead of the mean of the three.

    Returns:
        (B, 3, S, S) float32, three equal channels.
    """
    # no FFT of half-precision numbers on CPUs, and few digits of it elsewhere
    with torch.autocast(images.device.type, enabled=False):
        grey = images[:, 0].float() if first_channel else images.float().mean(1)
        frequencies = torch.fft.fftshift(torch.fft.fft2(grey), dim=(-2, -1))
        values = frequencies.abs() if variant == "amplitude" else frequencies.angle()
        low, high = (f(values, (-2, -1), keepdim=True) for f in (torch.amin, torch.amax))
        values = (values - low) / (high - low).clamp(min=1e-8)
    return values[:, None].expand(-1, 3, -1, -1)


class FrequencyAdapter(nn.Module):
    """One step of the chain, f → a + Up(GELU(Down(a))) with a = LayerNorm(f) without weights: (..., D) → (..., D)."""

    def __init__(self, width: int, bottleneck: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.down, self.up = nn.Linear(width, bottleneck), nn.Linear(bottleneck, width)

    def forward(self, frequencies: Tensor) -> Tensor:
        normal = F.layer_norm(frequencies, frequencies.shape[-1:], eps=self.eps)
        return normal + self.up(F.gelu(self.down(normal)))


class FrequencyAdapters(nn.Module):
    """Runs a SAM image encoder with an adapter's output added after each of its layers.

    Args:
        depth: layers of the encoder.
        width: channels of its tokens, D.
        bottleneck: channels inside of an adapter.
        scale: factor of what is added, at first; at 0 the encoder starts as it was.
        learn_scale: whether each layer learns its factor.
        variant: what of the spectrum is seen.
        first_channel: see `spectrum_image`.
        eps: of the layer norms.
    """

    def __init__(
        self,
        depth: int,
        width: int,
        bottleneck: int,
        scale: float,
        learn_scale: bool,
        variant: Variant,
        first_channel: bool = False,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.variant, self.first_channel = variant, first_channel
        self.blocks = nn.ModuleList(FrequencyAdapter(width, bottleneck, eps) for _ in range(depth))
        self.scale = nn.Parameter(torch.full((depth,), scale), requires_grad=learn_scale)

    def forward(self, encoder: SamVisionEncoder, images: Tensor) -> Tensor:
        """Features of images.

        Args:
            encoder: the `vision_encoder` of a SamModel, as transformers built it or prepared for fast inference.
            images: (B, 3, S, S) in the encoder's range.

        Returns:
            (B, C, t, t)
        """

        def embed(pixels: Tensor) -> Tensor:
            tokens = encoder.patch_embed(pixels)
            return tokens if encoder.pos_embed is None else tokens + encoder.pos_embed

        tokens = embed(images)
        # the chain never sees the tokens, so that each link is computed once, where it is needed
        frequencies = embed(spectrum_image(images, self.variant, self.first_channel)).float()
        for layer, block, scale in zip(encoder.layers, self.blocks, self.scale, strict=True):
            frequencies = block(frequencies)
            tokens = layer(tokens) + (scale * frequencies).to(tokens.dtype)
        return encoder.neck(tokens)
