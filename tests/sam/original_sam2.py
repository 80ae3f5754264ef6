"""The names of the authors of SAM 2, written down apart from the library's own map."""

from __future__ import annotations

import re

from torch import Tensor
from transformers import Sam2VideoModel


def to_original(model: Sam2VideoModel) -> dict[str, Tensor]:
    """The state dict as the authors' checkpoints hold it below "model"."""
    out = {}
    for name, tensor in model.state_dict().items():
        if name.startswith("shared_image_embedding"):
            continue
        if name == "prompt_encoder.point_embed.weight":
            for index, row in enumerate(tensor):
                out[f"sam_prompt_encoder.point_embeddings.{index}.weight"] = row[None].clone()
            continue
        out[_old(name)] = tensor.clone()
    return out


def _old(name: str) -> str:
    single = {
        "no_memory_embedding": "no_mem_embed",
        "no_memory_positional_encoding": "no_mem_pos_enc",
        "memory_temporal_positional_encoding": "maskmem_tpos_enc",
        "no_object_pointer": "no_obj_ptr",
        "occlusion_spatial_embedding_parameter": "no_obj_embed_spatial",
    }
    if name in single:
        return single[name]
    part, _, rest = name.partition(".")
    if part == "vision_encoder":
        rest = rest.replace("patch_embed.projection", "patch_embed.proj").replace("backbone.", "trunk.")
        rest = re.sub(r"layer_norm(\d)", r"norm\1", rest)
        rest = rest.replace("mlp.proj_in", "mlp.layers.0").replace("mlp.proj_out", "mlp.layers.1")
        return "image_encoder." + re.sub(r"neck\.convs\.(\d)\.", r"neck.convs.\1.conv.", rest)
    if part == "prompt_encoder":
        rest = rest.replace(
            "shared_embedding.positional_embedding", "pe_layer.positional_encoding_gaussian_matrix"
        )
        for new, old in (
            ("conv1", "0"),
            ("layer_norm1", "1"),
            ("conv2", "3"),
            ("layer_norm2", "4"),
            ("conv3", "6"),
        ):
            rest = rest.replace(f"mask_embed.{new}.", f"mask_downscaling.{old}.")
        return f"sam_prompt_encoder.{rest}"
    if part == "mask_decoder":
        for new, old in (("upscale_conv1", "0"), ("upscale_layer_norm", "1"), ("upscale_conv2", "3")):
            rest = rest.replace(f"{new}.", f"output_upscaling.{old}.")
        rest = rest.replace("mlp.proj_in", "mlp.layers.0").replace("mlp.proj_out", "mlp.layers.1")
        rest = rest.replace("layer_norm", "norm").replace("o_proj", "out_proj")
        return "sam_mask_decoder." + (_three(rest) if "transformer" not in rest else rest)
    if part == "memory_attention":
        return name.replace("layer_norm", "norm").replace("o_proj", "out_proj")
    if part == "memory_encoder":
        rest = rest.replace("feature_projection", "pix_feat_proj").replace("memory_fuser", "fuser")
        rest = (
            re.sub(r"^projection", "out_proj", rest).replace("layer_norm", "norm").replace(".scale", ".gamma")
        )
        rest = rest.replace("depthwise_conv", "dwconv").replace("pointwise_conv", "pwconv")
        place = {f"layers.{k}.{what}": 3 * k + n for k in range(4) for n, what in enumerate(("conv", "norm"))}
        for new, old in {**place, "final_conv": 12}.items():
            rest = rest.replace(f"mask_downsampler.{new}.", f"mask_downsampler.encoder.{old}.")
        return f"memory_encoder.{rest}"
    if part == "object_pointer_proj":
        return f"obj_ptr_proj.{_three(rest)}"
    if part == "temporal_positional_encoding_projection_layer":
        return f"obj_ptr_tpos_proj.{rest}"
    return name


def _three(name: str) -> str:
    """Perceptrons of three layers."""
    name = re.sub(r"(^|\.)layers\.0\.", r"\1layers.1.", name)
    return name.replace("proj_in", "layers.0").replace("proj_out", "layers.2")
