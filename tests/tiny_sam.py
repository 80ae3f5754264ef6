"""Small SAM-shaped models with random weights, in both file formats."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor
from transformers import SamConfig, SamModel


def tiny_config(image_size: int = 256, window: int = 5) -> SamConfig:
    """Four layers, two of them global, 64 channels; 16 tokens per side at 256 px (no multiple of the
    window)."""
    return SamConfig(
        vision_config={
            "hidden_size": 128,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "image_size": image_size,
            "patch_size": 16,
            "window_size": window,
            "global_attn_indexes": [1, 3],
            "output_channels": 64,
            "num_pos_feats": 32,
            "mlp_dim": 192,
        },
        prompt_encoder_config={"hidden_size": 64, "image_size": image_size, "patch_size": 16},
        mask_decoder_config={"hidden_size": 64, "mlp_dim": 96, "iou_head_hidden_dim": 48},
    )


def tiny_sam(seed: int = 0, image_size: int = 256) -> SamModel:
    """Every weight is random, position tables too: a default initialisation leaves those zero."""
    torch.manual_seed(seed)
    model = SamModel(tiny_config(image_size))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layer_norm" in name and name.endswith("weight"):
                parameter.copy_(1 + 0.1 * torch.randn_like(parameter))
            else:
                parameter.copy_(torch.randn_like(parameter) * (0.3 if "positional" in name else 0.08))
    return model.eval()


def save_folder(model: SamModel, folder: Path) -> Path:
    """config.json and model.safetensors."""
    model.save_pretrained(folder)
    return folder


def to_original(model: SamModel) -> dict[str, Tensor]:
    """The state dict under the names of an original checkpoint, written down apart from the library's own
    map."""
    out = {}
    for name, tensor in model.state_dict().items():
        if name.startswith("shared_image_embedding"):
            continue
        name = re.sub(r"^vision_encoder\.", "image_encoder.", name)
        if name.startswith("image_encoder."):
            name = name.replace(".layers.", ".blocks.").replace("patch_embed.projection", "patch_embed.proj")
            name = re.sub(r"blocks\.(\d+)\.layer_norm(\d)", r"blocks.\1.norm\2", name)
            for new, old in (("conv1", "0"), ("layer_norm1", "1"), ("conv2", "2"), ("layer_norm2", "3")):
                name = name.replace(f"neck.{new}.", f"neck.{old}.")
        elif name.startswith("prompt_encoder."):
            name = name.replace("prompt_encoder.point_embed.", "prompt_encoder.point_embeddings.").replace(
                "shared_embedding.positional_embedding", "pe_layer.positional_encoding_gaussian_matrix"
            )
            parts = (
                ("conv1", "0"),
                ("layer_norm1", "1"),
                ("conv2", "3"),
                ("layer_norm2", "4"),
                ("conv3", "6"),
            )
            for new, old in parts:
                name = name.replace(f"mask_embed.{new}.", f"mask_downscaling.{old}.")
        else:
            name = name.replace("layer_norm_final_attn", "norm_final_attn")
            name = re.sub(r"transformer\.layers\.(\d)\.layer_norm(\d)", r"transformer.layers.\1.norm\2", name)
            for new, old in (("upscale_conv1", "0"), ("upscale_layer_norm", "1"), ("upscale_conv2", "3")):
                name = name.replace(f"mask_decoder.{new}.", f"mask_decoder.output_upscaling.{old}.")
            head = r"(iou_prediction_head|output_hypernetworks_mlps\.\d+)\."
            name = re.sub(head + r"layers\.0\.", r"\1.layers.1.", name)
            name = re.sub(head + r"proj_in\.", r"\1.layers.0.", name)
            name = re.sub(head + r"proj_out\.", r"\1.layers.2.", name)
        out[name] = tensor.clone()
    return out
