"""Masks of some of the mask tokens of a SAM, without the others.

All tokens of a decoder attend to each other, so that a mask depends on which others are decoded with it.
Source: Kirillov et al., Segment Anything (2023), mask decoder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import SamModel


def decode_tokens(model: SamModel, features: Tensor, chosen: slice) -> Tensor:
    """Decode features without a prompt, by some of the tokens.

    Args:
        model: the SAM.
        features: of B slices, (B, C, t, t).
        chosen: which of its mask tokens, K of them.

    Returns:
        Logits (B, K, 4t, 4t).
    """
    decoder, count = model.mask_decoder, len(features)
    _, dense = model.prompt_encoder(input_points=None, input_labels=None, input_boxes=None, input_masks=None)
    tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight[chosen]])
    places = model.get_image_wide_positional_embeddings()
    seen, maps = decoder.transformer(
        point_embeddings=tokens.expand(count, 1, -1, -1),
        image_embeddings=features + dense,
        image_positional_embeddings=places.expand(count, -1, -1, -1),
        attention_similarity=None,
    )
    maps = maps.transpose(2, 3).reshape(features.shape)
    maps = decoder.activation(decoder.upscale_layer_norm(decoder.upscale_conv1(maps)))
    maps = decoder.activation(decoder.upscale_conv2(maps))
    # a mask is the product of the upscaled features with what the network of its token makes of the token
    networks = list(decoder.output_hypernetworks_mlps)[chosen]
    weights = torch.stack([network(seen[:, 0, 1 + n]) for n, network in enumerate(networks)], 1)
    return torch.einsum("bkc,bchw->bkhw", weights, maps)
