"""The architecture of the embedded default model: SAM's parts, small enough for a laptop."""

from __future__ import annotations

import torch
from transformers import SamConfig, SamModel


def tiny_config(
    image_size: int = 256, patch_size: int = 8, hidden: int = 256, layers: int = 8, heads: int = 4, width: int = 128
) -> SamConfig:
    """A SAM of other sizes.

    Args:
        image_size: side of the input in px.
        patch_size: side of a token in px.
        hidden: channels of the encoder, a multiple of `heads`.
        layers: layers of the encoder; every third and the last attend to the whole image, the others to windows.
        heads: attention heads of the encoder.
        width: channels of prompts, decoder and embedding, a multiple of 16.

    Raises:
        ValueError: sizes that do not divide.
    """
    if hidden % heads or width % 16 or image_size % patch_size:
        raise ValueError(
            f"hidden {hidden} must be a multiple of heads {heads}, width {width} of 16, and image_size {image_size} of "
            f"patch_size {patch_size}."
        )
    return SamConfig(
        vision_config={
            "hidden_size": hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "image_size": image_size,
            "patch_size": patch_size,
            "window_size": 8,
            "global_attn_indexes": sorted({*range(2, layers, 3), layers - 1}),
            "output_channels": width,
            "num_pos_feats": width // 2,
            "mlp_dim": 4 * hidden,
        },
        prompt_encoder_config={"hidden_size": width, "image_size": image_size, "patch_size": patch_size},
        mask_decoder_config={
            "hidden_size": width,
            "mlp_dim": 4 * width,
            "num_attention_heads": 8,
            "iou_head_hidden_dim": width,
        },
    )


def initialised(config: SamConfig, seed: int) -> SamModel:
    """A model to train from scratch, its weights drawn at sd 0.02; transformers would leave the encoder at zero."""
    generator = torch.Generator().manual_seed(seed)
    model = SamModel(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "positional_embedding" in name:
                parameter.normal_(0, 1, generator=generator)  # the frequencies of the Fourier features
            elif parameter.dim() > 1:
                fan_in = parameter[0].numel()
                sd = fan_in**-0.5 if "conv" in name or "projection" in name else 0.02
                parameter.normal_(0, sd, generator=generator).clamp_(-2 * sd, 2 * sd)
    model.shared_image_embedding.requires_grad_(False)
    return model
