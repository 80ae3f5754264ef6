"""Conversion of checkpoints of EfficientViT-SAM.

Source of the names: the public code of EfficientViT (Apache-2.0).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from segmed.sam.checkpoints.folding import folded

_BATCH_NORM_EPS = 1e-6
_RENAMES: tuple[tuple[str, str], ...] = (
    (r"^image_encoder\.backbone\.stages\.(\d+)\.op_list\.", r"image_encoder.stages.\1."),
    (r"^image_encoder\.neck\.input_ops\.(\d)\.op_list\.0\.", r"image_encoder.neck.inputs.\1."),
    (r"^image_encoder\.neck\.middle\.op_list\.", "image_encoder.neck.middle."),
    (r"^image_encoder\.neck\.output_ops\.0\.op_list\.0\.", "image_encoder.neck.output."),
    (r"\.context_module\.main\.aggreg\.0\.0\.", ".near."),
    (r"\.context_module\.main\.aggreg\.0\.1\.", ".mix."),
    (r"\.context_module\.main\.", "."),
    (r"\.local_module\.main\.", ".local."),
    (r"\.main\.", "."),
    (r"\.(conv1|spatial_conv|inverted_conv)\.", ".convs.0."),
    (r"\.(conv2|depth_conv)\.", ".convs.1."),
    (r"\.local\.point_conv\.", ".local.convs.2."),
)
_STAGE = "vision_encoder.stages."


def is_efficient_vit(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict has an EfficientViT encoder, by its published names or by those of
    `EfficientVitEncoder`."""
    return any(n.startswith(("image_encoder.backbone.stages.", "vision_encoder.neck.middle.")) for n in state)


def fold(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the encoder's weights and make batch normalisation part of its convolutions.

    Args:
        state: The weights by their published names.

    Returns:
        New weights, the encoder's by the names of `EfficientVitEncoder` below `image_encoder.`.

    Raises:
        KeyError: A convolution lacks a part of its normalisation.
    """
    out = {}
    for name, tensor in state.items():
        if not name.startswith(("image_encoder.backbone.", "image_encoder.neck.")):
            out[name] = tensor
            continue
        if ".norm." in name:
            continue
        new = _renamed(name, state)
        norm = name.removesuffix("conv.weight") + "norm."
        if name.endswith(".conv.weight") and norm + "weight" in state:
            bias = new.removesuffix("weight") + "bias"
            out[new], out[bias] = folded(tensor, norm, state, _BATCH_NORM_EPS)
        else:
            out[new] = tensor
    return out


def _renamed(name: str, state: Mapping[str, Tensor]) -> str:
    # the last convolution of a block with three of them, of one with two otherwise
    third = name.replace(".point_conv.", ".inverted_conv.")
    new = name.replace(".main.point_conv.", ".main.convs.2.") if third in state and third != name else name
    for pattern, replacement in _RENAMES:
        new = re.sub(pattern, replacement, new)
    new = new.replace(".point_conv.", ".convs.1.")
    # a stem is a convolution by itself
    stem = re.fullmatch(r"(image_encoder\.stages\.0\.0)\.conv\.(weight|bias)", new)
    return new if stem else new.replace(".conv.", ".")


def vision_config(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The entries of the encoder's configuration that fit the weights.

    Args:
        state: The weights by the names of `SamModel`.

    Raises:
        KeyError: A weight that every EfficientViT has is missing.
        IndexError: A block that every EfficientViT has is missing.
    """
    stages = [_blocks(state, f"{_STAGE}{n}.") for n in range(_count(state, _STAGE))]
    patch = 2 ** (len(stages) - 2)  # of the third but last stage, at whose scale the neck adds
    return {
        "efficient_vit": {"stages": stages, "neck": _blocks(state, "vision_encoder.neck.middle.")},
        "hidden_size": stages[-1][-1]["out"],
        "num_hidden_layers": 0,  # of SAM's own encoder, which is replaced
        "patch_size": patch,
        "image_size": 64 * patch,  # 64 × 64 tokens, as all published ones have
    }


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    numbers = [int(n.removeprefix(prefix).split(".")[0]) for n in state if n.startswith(prefix)]
    return 1 + max(numbers, default=-1)


def _blocks(state: Mapping[str, Tensor], prefix: str) -> list[dict[str, Any]]:
    return [_block(state, f"{prefix}{n}.") for n in range(_count(state, prefix))]


def _block(state: Mapping[str, Tensor], prefix: str) -> dict[str, Any]:
    """One block as `block_of` takes it."""
    if prefix + "conv.weight" in state:
        width, channels = state[prefix + "conv.weight"].shape[:2]
        return {"kind": "stem", "in": channels, "hidden": width, "out": width}
    attends = prefix + "qkv.weight" in state
    convs = [state[f"{prefix}{'local.' if attends else ''}convs.{n}.weight"] for n in (0, 1)]
    last = state.get(f"{prefix}{'local.' if attends else ''}convs.2.weight", convs[1])
    sizes = {"in": convs[0].shape[1], "hidden": convs[0].shape[0], "out": last.shape[0]}
    if attends:
        near, mix = state[prefix + "near.weight"], state[prefix + "mix.weight"]
        return {"kind": "att", **sizes, "dim": mix.shape[1], "kernel": near.shape[-1]}
    kind = "mb" if last is not convs[1] else "res" if convs[1].shape[-1] == 3 else "fmb"
    return {"kind": kind, **sizes}
