"""Conversion of original Segment Anything checkpoints to transformers' `SamModel`.

Source of the names: segment-anything (Kirillov et al., Segment Anything, 2023) and transformers' SamModel.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import SamConfig

from segmed.sam.checkpoints import efficient_vit_keymap as efficient_vit
from segmed.sam.checkpoints import tiny_vit_keymap as tiny_vit
from segmed.sam.checkpoints.efficient_vit_keymap import is_efficient_vit
from segmed.sam.checkpoints.tiny_vit_keymap import is_tiny_vit

_RENAMES: tuple[tuple[str, str], ...] = (
    (r"^image_encoder\.", "vision_encoder."),
    (r"\.blocks\.", ".layers."),
    (r"\.Adapter\.channel\.0\.", ".mlp.adapter.squeeze."),
    (r"\.Adapter\.channel\.2\.", ".mlp.adapter.excite."),
    (r"\.Adapter\.spatial\.0\.", ".mlp.adapter.down."),
    (r"\.Adapter\.spatial\.2\.", ".mlp.adapter.up."),
    (r"\.Adapter\.norm\.", ".mlp.adapter.norm."),
    (r"\.patch_embed\.proj\.", ".patch_embed.projection."),
    (r"\.norm([1-4])\.", r".layer_norm\1."),
    (r"\.neck\.0\.", ".neck.conv1."),
    (r"\.neck\.1\.", ".neck.layer_norm1."),
    (r"\.neck\.2\.", ".neck.conv2."),
    (r"\.neck\.3\.", ".neck.layer_norm2."),
    (r"\.point_embeddings\.", ".point_embed."),
    (r"\.mask_downscaling\.0\.", ".mask_embed.conv1."),
    (r"\.mask_downscaling\.1\.", ".mask_embed.layer_norm1."),
    (r"\.mask_downscaling\.3\.", ".mask_embed.conv2."),
    (r"\.mask_downscaling\.4\.", ".mask_embed.layer_norm2."),
    (r"\.mask_downscaling\.6\.", ".mask_embed.conv3."),
    (r"\.pe_layer\.positional_encoding_gaussian_matrix$", ".shared_embedding.positional_embedding"),
    (r"\.norm_final_attn\.", ".layer_norm_final_attn."),
    (r"\.output_upscaling\.0\.", ".upscale_conv1."),
    (r"\.output_upscaling\.1\.", ".upscale_layer_norm."),
    (r"\.output_upscaling\.3\.", ".upscale_conv2."),
)
_HEADS = re.compile(r"\.(iou_prediction_head|output_hypernetworks_mlps\.\d+)\.layers\.(\d+)\.")
_SHARED = "shared_image_embedding.positional_embedding"


def is_original(state: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of an original checkpoint."""
    return any(name.startswith(("image_encoder.", "module.image_encoder.")) for name in state)


def to_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename an original state dict; a `module.` prefix of multi-GPU training is dropped.

    Args:
        state: The weights by their original names.

    Returns:
        The same tensors by the names of `SamModel`, the positional matrix under both of its names.
    """
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    if is_tiny_vit(state):
        state = tiny_vit.fold(state)
    elif is_efficient_vit(state):
        state = efficient_vit.fold(state)
    depth = {m[1]: 0 for m in (_HEADS.search(name) for name in state) if m}
    for name in state:
        if match := _HEADS.search(name):
            depth[match[1]] = max(depth[match[1]], int(match[2]))
    renamed = {}
    for name, tensor in state.items():
        if match := _HEADS.search(name):
            index, last = int(match[2]), depth[match[1]]
            layer = "proj_in" if index == 0 else "proj_out" if index == last else f"layers.{index - 1}"
            name = f"{name[: match.start()]}.{match[1]}.{layer}.{name[match.end() :]}"
        for pattern, replacement in _RENAMES:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    positional = renamed.get("prompt_encoder.shared_embedding.positional_embedding")
    if positional is not None:
        renamed[_SHARED] = positional
    return renamed


def infer_config(state: Mapping[str, Tensor]) -> SamConfig:
    """Infer the architecture of a SamModel state dict from the shapes of its weights.

    Args:
        state: The weights by the names of `SamModel`.

    Returns:
        The configuration of the model that fits the weights.

    Raises:
        KeyError: If a weight that every SAM has is missing.
        IndexError: If a numbered part that every SAM has is missing.
    """
    vision, preparation = _encoder(state)
    last = "output" if is_efficient_vit(state) else "conv2"
    vision["output_channels"] = state[f"vision_encoder.neck.{last}.weight"].shape[0]
    vision["num_pos_feats"] = state[_SHARED].shape[1]
    mask_tokens, width = state["mask_decoder.mask_tokens.weight"].shape
    block = "mask_decoder.transformer.layers.0."
    inner = state[block + "cross_attn_token_to_image.q_proj.weight"].shape[0]
    return SamConfig(
        preparation=preparation,
        vision_config=vision,
        prompt_encoder_config={
            "hidden_size": width,
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
            "mask_input_channels": state["prompt_encoder.mask_embed.conv2.weight"].shape[0],
        },
        mask_decoder_config={
            "hidden_size": width,
            "mlp_dim": state[block + "mlp.lin1.weight"].shape[0],
            "num_hidden_layers": _count(state, r"mask_decoder\.transformer\.layers\.(\d+)\."),
            "attention_downsample_rate": width // inner,
            "num_multimask_outputs": mask_tokens - 1,
            "iou_head_hidden_dim": state["mask_decoder.iou_prediction_head.proj_in.weight"].shape[0],
            # transformers' default of 1e-6 is that of SAM's encoder; the authors' decoder has PyTorch's,
            # which changes logits by some hundredths
            **({"layer_norm_eps": 1e-5} if preparation and not is_efficient_vit(state) else {}),
        },
    )


def _encoder(state: Mapping[str, Tensor]) -> tuple[dict[str, Any], str]:
    """The entries of the encoder's configuration, and the preparation of slices if the weights tell it."""
    if is_tiny_vit(state):
        vision = tiny_vit.vision_config(state)
        # the published one without strides is LiteMedSAM; others do as SAM
        return vision, "litemedsam" if vision["patch_size"] == 4 else "sam"
    if is_efficient_vit(state):
        return efficient_vit.vision_config(state), "sam"
    vision = _vit_config(state)
    return vision, "sam-med2d" if vision.get("med2d_adapters") else ""


def _vit_config(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The entries of the configuration of SAM's own encoder."""
    # The image has t × t tokens. A table of relative positions over n tokens has 2 n - 1 rows: layers with 2
    # t - 1 rows attend globally, shorter ones within windows of n tokens.
    projection = state["vision_encoder.patch_embed.projection.weight"]
    hidden, patch = projection.shape[0], projection.shape[-1]
    depth = _count(state, r"vision_encoder\.layers\.(\d+)\.")
    relative = [state.get(f"vision_encoder.layers.{i}.attn.rel_pos_h") for i in range(depth)]
    has_positions = "vision_encoder.pos_embed" in state
    if has_positions:
        tokens = state["vision_encoder.pos_embed"].shape[1]
    else:
        tokens = (max(r.shape[0] for r in relative if r is not None) + 1) // 2
    global_length = 2 * tokens - 1
    lengths = [r.shape[0] if r is not None else global_length for r in relative]
    windowed = [length for length in lengths if length != global_length]
    mlp = state["vision_encoder.layers.0.mlp.lin1.weight"].shape[0]
    head = next((r.shape[1] for r in relative if r is not None), 64)
    adapters = {"med2d_adapters": True} if "vision_encoder.layers.0.mlp.adapter.norm.weight" in state else {}
    return {
        **adapters,
        "hidden_size": hidden,
        "num_hidden_layers": depth,
        "num_attention_heads": hidden // head,
        "num_channels": projection.shape[1],
        "image_size": tokens * patch,
        "patch_size": patch,
        "mlp_dim": mlp,
        "mlp_ratio": mlp / hidden,
        "qkv_bias": "vision_encoder.layers.0.attn.qkv.bias" in state,
        "use_abs_pos": has_positions,
        "use_rel_pos": relative[0] is not None,
        "window_size": (windowed[0] + 1) // 2 if windowed else 0,
        "global_attn_indexes": [i for i, length in enumerate(lengths) if length == global_length],
    }


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    """One more than the highest number in the names that match."""
    return 1 + max(int(m[1]) for m in (re.match(pattern, name) for name in state) if m)
