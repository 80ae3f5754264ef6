"""Frequency adapters: the adapted spectrum of an image is added after each layer of SAM's encoder.

Source: Wei et al., I-MedSAM: Implicit Medical Image Segmentation with Segment Anything (2024), frequency
adapter.
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
    """Amplitude or phase of the 2-D Fourier transform, centred and scaled to [0, 1] per image.

    Args:
        images: Images (B, 3, S, S).
        variant: `amplitude`, or `phase` as in the authors' ablation.
        first_channel: Whether to transform the first channel, as the authors' code does, instead of the mean
            of all.

    Returns:
        The spectra as images with three equal channels, (B, 3, S, S) float32.
    """
    # CPUs have no FFT of half-precision numbers, and other devices compute few digits of it.
    with torch.autocast(images.device.type, enabled=False):
        grey = images[:, 0].float() if first_channel else images.float().mean(1)
        frequencies = torch.fft.fftshift(torch.fft.fft2(grey), dim=(-2, -1))
        values = frequencies.abs() if variant == "amplitude" else frequencies.angle()
        low, high = (f(values, (-2, -1), keepdim=True) for f in (torch.amin, torch.amax))
        values = (values - low) / (high - low).clamp(min=1e-8)
    return values[:, None].expand(-1, 3, -1, -1)


class FrequencyAdapter(nn.Module):
    """One step of the chain, f → a + Up(GELU(Down(a))) with a = LayerNorm(f): (..., D) → (..., D)."""

    def __init__(self, width: int, bottleneck: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.down, self.up = nn.Linear(width, bottleneck), nn.Linear(bottleneck, width)

    def forward(self, frequencies: Tensor) -> Tensor:
        normal = F.layer_norm(frequencies, frequencies.shape[-1:], eps=self.eps)
        return normal + self.up(F.gelu(self.down(normal)))


class FrequencyAdapters(nn.Module):
    """A SAM image encoder with the output of an adapter added after each of its layers.

    With token maps x and frequency maps f: f_n = adapter_n(f_{n-1}), x_n = layer_n(x_{n-1}) + scale_n f_n.

    Args:
        depth: Layers of the encoder.
        width: Channels D of its tokens.
        bottleneck: Channels inside an adapter.
        scale: Initial factor of the added maps; with 0 the encoder is unchanged at first.
        learn_scale: Whether each layer learns its factor.
        variant: The used part of the spectrum.
        first_channel: See `spectrum_image`.
        eps: Epsilon of the layer norms.
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
        """Encode images.

        Args:
            encoder: The `vision_encoder` of a SamModel, as transformers built it or prepared for fast
                inference.
            images: Images (B, 3, S, S) in the encoder's range of values.

        Returns:
            The features, (B, C, t, t).
        """

        # Both together, because a convolutional stem is much slower on one image at a time. The chain of
        # frequency maps does not depend on the tokens; each map is computed just before its layer.
        spectra = spectrum_image(images, self.variant, self.first_channel)
        both = encoder.patch_embed(torch.cat([images, spectra.to(images)]))
        tokens, frequencies = (both if encoder.pos_embed is None else both + encoder.pos_embed).chunk(2)
        frequencies = frequencies.float()
        for layer, block, scale in zip(encoder.layers, self.blocks, self.scale, strict=True):
            frequencies = block(frequencies)
            tokens = layer(tokens) + (scale * frequencies).to(tokens.dtype)
        return encoder.neck(tokens)
