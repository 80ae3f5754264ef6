"""The number format of the SAM image encoder, and its preparation for inference.

bfloat16 halves the memory traffic and, where the processor multiplies bf16 matrices in hardware, is several
times faster than float32; elsewhere it is emulated and slower, so the choice follows the device.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers.models.sam.modeling_sam import (
    SamMLPBlock,
    SamPatchEmbeddings,
    SamVisionLayer,
    SamVisionNeck,
)

from segmed.sam.cpu.attention import use_fast_attention
from segmed.sam.cpu.dtype import encoder_dtype
from segmed.sam.encoders.efficient_vit import EfficientVitEncoder
from segmed.sam.encoders.tiny_vit import TinyVitEncoder

# Tokens per thread that pass through the MLP at a time.
_TOKENS_PER_THREAD = 512


def prepare_encoder(encoder: nn.Module, device: torch.device | str, precision: str = "auto") -> nn.Module:
    """Make a SAM image encoder ready for fast inference, in place.

    Afterwards it takes images of any floating point format and returns features in the chosen format. The
    matrix products run in that format, while the residual stream, the normalisation layers and the position
    embedding stay in float32, which halves the squared error of bf16 at no cost in time. Weights converted
    to bf16 do not come back: prepare a copy if the float32 weights are still needed.

    Args:
        encoder: The ``vision_encoder`` of a ``SamModel``, with SDPA attention, a TinyViT or an EfficientViT.
        device: Where the encoder is to run.
        precision: One of ``PRECISIONS``, see ``encoder_dtype``.

    Returns:
        The same encoder, on ``device``, in eval mode.

    Raises:
        ValueError: If ``precision`` is unknown or ``encoder`` holds no SAM attention layers.
    """
    device = torch.device(device)
    dtype = encoder_dtype(device, precision)
    if isinstance(encoder, TinyVitEncoder | EfficientVitEncoder):
        return encoder.to(device, dtype).to(memory_format=torch.channels_last).eval()
    use_fast_attention(encoder)
    for module in encoder.modules():
        if type(module) is SamPatchEmbeddings:
            module.__class__ = PackedPatchEmbeddings
        elif type(module) is SamMLPBlock:
            module.__class__ = ChunkedMLP
        elif type(module) is SamVisionNeck:
            module.__class__ = CastingNeck
        elif isinstance(module, SamVisionLayer):
            for norm in (module.layer_norm1, module.layer_norm2):
                norm.__class__ = CastingLayerNorm
    _convert(encoder, device, dtype)
    return encoder.eval()


class PackedPatchEmbeddings(SamPatchEmbeddings):
    """Patch embedding that starts a float32 residual stream with the channels last in memory.

    The stock layer returns a transposed view, and every later sum and normalisation inherits its layout.
    """

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Embed images, (B, 3, height, width) in pixels -> (B, H, W, C) in tokens."""
        tokens = super().forward(pixel_values.to(self.projection.weight.dtype))
        return tokens.to(torch.float32, memory_format=torch.contiguous_format).contiguous()


class CastingLayerNorm(nn.LayerNorm):
    """Layer normalisation in float32 that hands its result on in the format of the matrix products."""

    output_dtype: torch.dtype = torch.float32

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Normalise the last dimension, (..., C) -> (..., C)."""
        return super().forward(hidden_states).to(self.output_dtype)


class CastingNeck(SamVisionNeck):
    """Neck that takes the residual stream in any format."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Reduce the channels, (B, H, W, C) -> (B, 256, H, W)."""
        return super().forward(hidden_states.to(self.conv1.weight.dtype))


class ChunkedMLP(SamMLPBlock):
    """MLP of an encoder layer, run on a part of the tokens at a time on CPUs when no gradients are needed.

    The hidden activations of a whole image are four times its features and would leave the caches.
    """

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Transform each token, (..., C) -> (..., C)."""
        tokens = hidden_states.reshape(-1, hidden_states.shape[-1])
        step = _TOKENS_PER_THREAD * torch.get_num_threads()
        if torch.is_grad_enabled() or hidden_states.device.type != "cpu" or len(tokens) <= step:
            return super().forward(hidden_states)
        stock = super().forward
        return torch.cat([stock(part) for part in tokens.split(step)]).view(hidden_states.shape)


def _convert(encoder: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Move the encoder and convert it to ``dtype``, except for what stays in float32."""
    norms = [module for module in encoder.modules() if isinstance(module, CastingLayerNorm)]
    states = [{key: value.float().clone() for key, value in norm.state_dict().items()} for norm in norms]
    position = getattr(encoder, "pos_embed", None)
    exact = None if position is None else position.detach().float().clone()
    encoder.to(device=device, dtype=dtype)
    for norm, state in zip(norms, states, strict=True):
        norm.float().load_state_dict(state)
        norm.output_dtype = dtype
    if exact is not None:
        encoder.pos_embed.data = exact.to(device)
