"""Change of a SAM's input size: the two kinds of weights that depend on it are resampled.

Source: the published SAMed procedure (Zhang and Liu, 2023), with the global layers taken from the
configuration.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor
from transformers import SamConfig


def resized_config(config: SamConfig, image_size: int) -> SamConfig:
    """The same architecture for square inputs of `image_size` pixels.

    Raises:
        ValueError: If `image_size` is not a positive multiple of the patch size.
    """
    patch = config.vision_config.patch_size
    if image_size < patch or image_size % patch:
        raise ValueError(
            f"The input size {image_size} must be a positive multiple of the patch size {patch}."
        )
    config = copy.deepcopy(config)
    config.vision_config.image_size = image_size
    config.prompt_encoder_config.image_size = image_size
    config.prompt_encoder_config.image_embedding_size = image_size // patch
    return config


def resize_weights(state: Mapping[str, Tensor], config: SamConfig) -> dict[str, Tensor]:
    """Resample position tables to fit `config`: `pos_embed`, and `rel_pos` of global layers.

    Args:
        state: The weights of any input size by the names of `SamModel`.
        config: The wanted architecture, which differs from that of the weights in its image size only.

    Returns:
        A new mapping; weights of windowed layers and all others are the same tensors.
    """
    # With t tokens per side, pos_embed is (1, t, t, C), and rel_pos of a global layer (2 t - 1, D), one row
    # for each distance between two tokens. Interpolation runs along the token dimensions.
    vision = config.vision_config
    tokens = vision.image_size // vision.patch_size
    out = dict(state)
    name = "vision_encoder.pos_embed"
    if name in out and out[name].shape[1] != tokens:
        table = out[name].float().permute(0, 3, 1, 2)
        table = F.interpolate(table, (tokens, tokens), mode="bilinear", align_corners=False)
        out[name] = table.permute(0, 2, 3, 1).to(state[name].dtype)
    for layer in vision.global_attn_indexes:
        for axis in "hw":
            name = f"vision_encoder.layers.{layer}.attn.rel_pos_{axis}"
            if name in out and out[name].shape[0] != 2 * tokens - 1:
                table = out[name].float().T[None]
                table = F.interpolate(table, 2 * tokens - 1, mode="linear", align_corners=False)
                out[name] = table[0].T.to(state[name].dtype)
    return out
