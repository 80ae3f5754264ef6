"""A small SAM2 with random weights, with its memory or without, as a folder."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import Sam2Config, Sam2Model, Sam2VideoConfig, Sam2VideoModel

SIDE = 128


def tiny_sam2(seed: int = 0, appears: float = 10.0) -> Sam2VideoModel:
    """Four stages of a Hiera with 16 to 128 channels, 8 tokens per side at 128 px, two layers of memory
    attention.

    Memories have 64 channels and features more: transformers takes no others.

    Args:
        seed: of the weights.
        appears: logit with which it says that the object is there.
    """
    torch.manual_seed(seed)
    backbone = {
        "hidden_size": 16,
        "image_size": [SIDE, SIDE],
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [16, 32, 64, 128],
        "num_attention_heads_per_stage": [1, 1, 2, 4],
        "window_size_per_stage": [8, 4, 4, 2],
        "global_attention_blocks": [3],
    }
    vision = {
        "backbone_config": {"model_type": "sam2_hiera_det_model", **backbone},
        "backbone_channel_list": [128, 64, 32, 16],
        "backbone_feature_sizes": [[SIDE // 4] * 2, [SIDE // 8] * 2, [SIDE // 16] * 2],
        "fpn_hidden_size": 128,
    }
    config = Sam2VideoConfig(
        vision_config={"model_type": "sam2_vision_model", **vision},
        prompt_encoder_config={"hidden_size": 128, "image_size": SIDE, "patch_size": 16},
        mask_decoder_config={"hidden_size": 128, "mlp_dim": 96, "iou_head_hidden_dim": 48},
        image_size=SIDE,
        memory_attention_hidden_size=128,
        memory_attention_num_layers=2,
        memory_attention_feed_forward_hidden_size=96,
        memory_attention_rope_feat_sizes=[SIDE // 16, SIDE // 16],
        memory_encoder_hidden_size=128,
        memory_encoder_output_channels=64,
        mask_downsampler_embed_dim=128,
        memory_fuser_embed_dim=128,
        memory_fuser_intermediate_dim=96,
    )
    model = Sam2VideoModel(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layer_norm" in name and name.endswith("weight"):
                parameter.copy_(1 + 0.1 * torch.randn_like(parameter))
            else:
                parameter.copy_(
                    torch.randn_like(parameter) * (0.3 if "positional_embedding" in name else 0.08)
                )
        model.mask_decoder.pred_obj_score_head.proj_out.weight.zero_()
        model.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(appears)
    return model.eval()


def save_sam2(model: Sam2VideoModel, folder: Path, memory: bool = True) -> Path:
    """config.json and model.safetensors; without memory as a `Sam2Model` is saved."""
    model.save_pretrained(folder)
    if not memory:
        Sam2Model.from_pretrained(
            folder, config=Sam2Config.from_dict(model.config.to_dict())
        ).save_pretrained(folder)
    return folder
