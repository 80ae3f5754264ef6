"""Conversion of checkpoints with a TinyViT encoder, such as MobileSAM's and LiteMedSAM's.

Source of the names: the public code of MobileSAM and LiteMedSAM (Apache-2.0).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isqrt
from typing import Any

from torch import Tensor

from segmed.sam.checkpoints.folding import folded
from segmed.sam.encoders.tiny_vit import TinyVitShape

_BATCH_NORM_EPS = 1e-5
_STEM = {"seq.0.": "conv1.", "seq.2.": "conv2."}
# a classifier of the encoder's own pretraining, and tables that follow from the size of the windows
_UNUSED = re.compile(r"image_encoder\.(norm_head|head)\.|\.(attention_bias_idxs|ab|num_batches_tracked)$")
_STAGE = "vision_encoder.stages."


def is_tiny_vit(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict has a TinyViT encoder, by its published names or by those of `TinyVitEncoder`."""
    return any(name.startswith(("image_encoder.patch_embed.seq.", f"{_STAGE}1.layers.")) for name in state)


def fold(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the encoder's weights and make batch normalisation part of its convolutions.

    Args:
        state: The weights by their published names.

    Returns:
        New weights, the encoder's by the names of `TinyVitEncoder` below `image_encoder.`.

    Raises:
        KeyError: A convolution lacks a part of its normalisation.
    """
    out = {}
    for name, tensor in state.items():
        if _UNUSED.search(name) or ".bn." in name:
            continue
        new = re.sub(r"^image_encoder\.layers\.", "image_encoder.stages.", name)
        for old, ours in _STEM.items():
            new = new.replace(f"image_encoder.patch_embed.{old}", f"image_encoder.patch_embed.{ours}")
        if not new.endswith(".c.weight"):
            out[new] = tensor
            continue
        convolution = new.removesuffix("c.weight")
        out[convolution + "weight"], out[convolution + "bias"] = folded(
            tensor, name.removesuffix("c.weight") + "bn.", state, _BATCH_NORM_EPS
        )
    return out


def vision_config(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The entries of the encoder's configuration that fit the weights.

    Args:
        state: The weights by the names of `SamModel`.

    Raises:
        KeyError: A weight that every TinyViT has is missing.
        ValueError: They are not those of a TinyViT.
    """
    depths = [0, 0, 0, 0]
    for name in state:
        if match := re.match(r"vision_encoder\.stages\.([0-3])\.layers\.(\d+)\.", name):
            depths[int(match[1])] = max(depths[int(match[1])], int(match[2]) + 1)
    biases = [state[f"{_STAGE}{n}.layers.0.attn.attention_biases"] for n in (1, 2, 3)]
    stem = state["vision_encoder.patch_embed.conv2.weight"]
    widths = [stem.shape[0], *(state[f"{_STAGE}{n}.layers.0.attn.norm.weight"].shape[0] for n in (1, 2, 3))]
    shape = TinyVitShape(
        tuple(widths),
        tuple(depths),
        tuple(bias.shape[0] for bias in biases),
        tuple(isqrt(bias.shape[1]) for bias in biases),
        stem.shape[-1],
    )
    return {
        "tiny_vit": shape.as_config(),
        "hidden_size": widths[-1],
        "num_hidden_layers": 0,  # of SAM's own encoder, which is replaced
        "patch_size": shape.patch_size,
        "image_size": 64 * shape.patch_size,  # 64 × 64 tokens, as all published ones have
    }
