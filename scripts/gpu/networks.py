"""Networks with random weights that the check of a GPU runs, and how much of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from transformers import SamConfig, SamModel


@dataclass(frozen=True)
class Sizes:
    """What is run.

    Attributes:
        vit: configuration of the SAM whose encoder is timed.
        batches: slices encoded together.
        product: side of the square matrices whose product gives the device's rate.
        copied: bytes of the copy that gives its bandwidth.
        trained: slices per training step of the SAM.
        objects: objects per training step of the default model.
    """

    vit: SamConfig
    batches: tuple[int, ...]
    product: int
    copied: int
    trained: int
    objects: int


def small_config() -> SamConfig:
    """A SAM with windowed and global layers, for comparisons and for --tiny."""
    side, width = 128, 32
    return SamConfig(
        vision_config={
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": side,
            "patch_size": 16,
            "window_size": 5,
            "global_attn_indexes": [1],
            "output_channels": width,
            "num_pos_feats": width // 2,
            "mlp_dim": 128,
        },
        prompt_encoder_config={"hidden_size": width, "image_size": side, "patch_size": 16},
        mask_decoder_config={"hidden_size": width, "mlp_dim": 64, "iou_head_hidden_dim": 32},
    )


def random_sam(config: SamConfig) -> SamModel:
    """Weights at the scale of trained ones, the same at each call."""
    torch.manual_seed(0)
    model = SamModel(config).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            nn.init.trunc_normal_(parameter, std=0.1 if "rel_pos" in name else 0.05)
    return model
