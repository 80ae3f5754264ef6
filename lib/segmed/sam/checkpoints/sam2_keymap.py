"""SAM 2 checkpoints of their authors read as transformers' `Sam2VideoModel`: names of weights, and their
sizes.

Source of the names: SAM 2 (Ravi et al., 2024) and transformers' Sam2VideoModel.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Sam2VideoConfig

# perceptrons whose layers have names in transformers: first, those in the middle, last
_PERCEPTRONS = re.compile(
    r"(obj_ptr_proj|pred_obj_score_head|iou_prediction_head|output_hypernetworks_mlps\.\d+|\.mlp)\.layers\.(\d+)\."
)
_DOWNSAMPLER = re.compile(r"^memory_encoder\.mask_downsampler\.encoder\.(\d+)\.")
_RENAMES: tuple[tuple[str, str], ...] = (
    (r"^image_encoder\.trunk\.", "vision_encoder.backbone."),
    (r"^image_encoder\.neck\.convs\.(\d+)\.conv\.", r"vision_encoder.neck.convs.\1."),
    (r"\.patch_embed\.proj\.", ".patch_embed.projection."),
    (r"^sam_prompt_encoder\.", "prompt_encoder."),
    (r"\.pe_layer\.positional_encoding_gaussian_matrix$", ".shared_embedding.positional_embedding"),
    (r"\.mask_downscaling\.0\.", ".mask_embed.conv1."),
    (r"\.mask_downscaling\.1\.", ".mask_embed.layer_norm1."),
    (r"\.mask_downscaling\.3\.", ".mask_embed.conv2."),
    (r"\.mask_downscaling\.4\.", ".mask_embed.layer_norm2."),
    (r"\.mask_downscaling\.6\.", ".mask_embed.conv3."),
    (r"^sam_mask_decoder\.", "mask_decoder."),
    (r"\.output_upscaling\.0\.", ".upscale_conv1."),
    (r"\.output_upscaling\.1\.", ".upscale_layer_norm."),
    (r"\.output_upscaling\.3\.", ".upscale_conv2."),
    (r"\.norm_final_attn\.", ".layer_norm_final_attn."),
    (r"^memory_encoder\.pix_feat_proj\.", "memory_encoder.feature_projection."),
    (r"^memory_encoder\.out_proj\.", "memory_encoder.projection."),
    (r"^memory_encoder\.fuser\.", "memory_encoder.memory_fuser."),
    (r"\.dwconv\.", ".depthwise_conv."),
    (r"\.pwconv([12])\.", r".pointwise_conv\1."),
    (r"\.gamma$", ".scale"),
    (r"\.out_proj\.", ".o_proj."),
    (r"\.norm(\d?)\.", r".layer_norm\1."),
    (r"^obj_ptr_proj\.", "object_pointer_proj."),
    (r"^obj_ptr_tpos_proj\.", "temporal_positional_encoding_projection_layer."),
    (r"^no_obj_embed_spatial$", "occlusion_spatial_embedding_parameter"),
    (r"^no_obj_ptr$", "no_object_pointer"),
    (r"^no_mem_embed$", "no_memory_embedding"),
    (r"^no_mem_pos_enc$", "no_memory_positional_encoding"),
    (r"^maskmem_tpos_enc$", "memory_temporal_positional_encoding"),
)
_POINTS = re.compile(r"^prompt_encoder\.point_embeddings\.(\d+)\.weight$")
_MATRIX = "prompt_encoder.shared_embedding.positional_embedding"


@dataclass(frozen=True)
class _Size:
    """What the shapes of the published encoders do not tell."""

    blocks: tuple[int, int, int, int]  # per stage
    heads: int  # of the first stage; each stage has twice as many
    windows: tuple[int, int, int, int]  # tokens per side, per stage
    global_blocks: tuple[int, int, int]


_SIZES = {  # by channels of the first stage and number of blocks
    (96, 12): _Size((1, 2, 7, 2), 1, (8, 4, 14, 7), (5, 7, 9)),
    (96, 16): _Size((1, 2, 11, 2), 1, (8, 4, 14, 7), (7, 10, 13)),
    (112, 24): _Size((2, 3, 16, 3), 2, (8, 4, 14, 7), (12, 16, 20)),
    (144, 48): _Size((2, 6, 36, 4), 2, (8, 4, 16, 8), (23, 33, 43)),
}


def is_original(state: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of the authors."""
    return "image_encoder.trunk.pos_embed_window" in state


def to_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a state dict of the authors.

    Args:
        state: original names to weights.

    Returns:
        Sam2VideoModel names to the same tensors; the point embeddings as one, the positional matrix under
        both names.
    """
    depth: dict[str, int] = {}
    for name in state:
        if match := _PERCEPTRONS.search(name):
            key = name[: match.end(1)]
            depth[key] = max(depth.get(key, 0), int(match[2]))
    renamed = {_renamed(name, depth): tensor for name, tensor in state.items()}
    points = sorted((int(m[1]), m[0]) for m in map(_POINTS.match, renamed) if m)
    if points:
        renamed["prompt_encoder.point_embed.weight"] = torch.cat([renamed.pop(name) for _, name in points])
    if _MATRIX in renamed:
        renamed["shared_image_embedding.positional_embedding"] = renamed[_MATRIX]
    return renamed


def infer_config(state: Mapping[str, Tensor]) -> Sam2VideoConfig:
    """The configuration of a published size, found by the shapes of renamed weights.

    Raises:
        ValueError: it is none of the published sizes.
        KeyError: a weight that every SAM 2 has is missing.
    """
    trunk = "vision_encoder.backbone."
    channels = state[trunk + "patch_embed.projection.weight"].shape[0]
    numbers = [
        int(m[1]) for m in (re.match(re.escape(trunk) + r"blocks\.(\d+)\.", name) for name in state) if m
    ]
    blocks = 1 + max(numbers, default=-1)
    if (channels, blocks) not in _SIZES:
        raise ValueError(
            f"its encoder has {blocks} blocks that begin with {channels} channels, which is none of the "
            "published sizes (tiny, small, base-plus, large); put it into a folder with its config.json"
        )
    size = _SIZES[channels, blocks]
    widths = [channels * 2**stage for stage in range(4)]
    encoder = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": channels,
        "blocks_per_stage": list(size.blocks),
        "embed_dim_per_stage": widths,
        "num_attention_heads": size.heads,
        "num_attention_heads_per_stage": [size.heads * 2**stage for stage in range(4)],
        "window_size_per_stage": list(size.windows),
        "global_attention_blocks": list(size.global_blocks),
        "window_positional_embedding_background_size": list(state[trunk + "pos_embed"].shape[-2:]),
    }
    vision = {
        "model_type": "sam2_vision_model",
        "backbone_config": encoder,
        "backbone_channel_list": widths[::-1],
    }
    return Sam2VideoConfig(
        vision_config=vision,
        # SAM 2.1 has both, SAM 2.0 neither
        enable_occlusion_spatial_embedding="occlusion_spatial_embedding_parameter" in state,
        enable_temporal_pos_encoding_for_object_pointers="temporal_positional_encoding_projection_layer.weight"
        in state,
    )


def _renamed(name: str, depth: Mapping[str, int]) -> str:
    if match := _PERCEPTRONS.search(name):
        index, last = int(match[2]), depth[name[: match.end(1)]]
        layer = "proj_in" if index == 0 else "proj_out" if index == last else f"layers.{index - 1}"
        name = f"{name[: match.end(1)]}.{layer}.{name[match.end() :]}"
    elif match := _DOWNSAMPLER.match(name):
        # convolution, norm and activation repeat; the last convolution stands alone
        stage, part = divmod(int(match[1]), 3)
        place = "final_conv" if stage == 4 else f"layers.{stage}.{('conv', 'layer_norm')[part]}"
        name = f"memory_encoder.mask_downsampler.{place}.{name[match.end() :]}"
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name
