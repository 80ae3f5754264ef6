"""The architecture of the embedded default model: the parts of SAM at a size that suits a laptop."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import SamConfig, SamModel

from segmed.sam.stem import build_sam


def tiny_config(
    image_size: int = 64,
    hidden: int = 128,
    layers: int = 2,
    heads: int = 4,
    width: int = 128,
    patch_size: int = 4,
    stem_channels: Sequence[int] = (32, 64, 128, 192, 256),
    stem_depths: Sequence[int] = (0, 1, 2, 2, 2),
) -> SamConfig:
    """The configuration of a small SAM with a convolutional stem.

    All of its attention is global and without relative positions: with few tokens, windows cost more than
    they save.

    Args:
        image_size: Side of the input in px.
        hidden: Channels of the encoder, a multiple of `heads`.
        layers: Layers of the encoder.
        heads: Attention heads of the encoder.
        width: Channels of prompts, decoder and embedding, a multiple of 16.
        patch_size: Side of a token in px.
        stem_channels: Channels of the stem's stages, see `ConvStem`; () for SAM's own patch embedding.
        stem_depths: Residual blocks of the stem's stages.

    Returns:
        A configuration for `build_sam`.

    Raises:
        ValueError: If the sizes are not multiples of each other as described above.
    """
    if hidden % heads or width % 16 or image_size % patch_size:
        raise ValueError(
            f"hidden {hidden} must be a multiple of heads {heads}, width {width} of 16, and image_size "
            f"{image_size} of the patch size {patch_size}."
        )
    return SamConfig(
        vision_config={
            "hidden_size": hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "image_size": image_size,
            "patch_size": patch_size,
            "window_size": 0,
            "use_rel_pos": False,
            "global_attn_indexes": list(range(layers)),
            "output_channels": width,
            "num_pos_feats": width // 2,
            "mlp_dim": 4 * hidden,
            **(
                {"stem_channels": list(stem_channels), "stem_depths": list(stem_depths)}
                if stem_channels
                else {}
            ),
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
    """Build a model to train from scratch; transformers would leave parts of the encoder at zero.

    Linear weights are drawn from a normal distribution with a standard deviation of 0.02, those of
    convolutions with one over the square root of their fan-in, both cut off at two standard deviations. The
    last weights of each encoder layer are zero: the layers start as the identity, and the stem learns first.

    Args:
        config: The architecture.
        seed: Seed of the random weights.
    """
    generator = torch.Generator().manual_seed(seed)
    model = build_sam(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "positional_embedding" in name:
                parameter.normal_(0, 1, generator=generator)  # the frequencies of the Fourier features
            elif parameter.dim() > 1:
                fan_in = parameter[0].numel()
                sd = fan_in**-0.5 if parameter.dim() == 4 and "pos_embed" not in name else 0.02
                parameter.normal_(0, sd, generator=generator).clamp_(-2 * sd, 2 * sd)
            elif name.endswith("bias"):
                parameter.zero_()
        for layer in model.vision_encoder.layers:
            layer.attn.proj.weight.zero_()
            layer.mlp.lin2.weight.zero_()
    model.shared_image_embedding.requires_grad_(False)
    return model
