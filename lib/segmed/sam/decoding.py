"""Prompts in pixels of a slice to masks, by a SamModel's prompt encoder and mask decoder."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import SamModel

from segmed.imaging.prompts import SlicePrompt
from segmed.sam.embedding import Embedding
from segmed.sam.frame import Frame

_CERTAIN = 10.0  # logit of a pixel of a mask prompt, METHODS 12.1
_BATCH = 32


def decode_low_resolution(
    model: SamModel,
    embedding: Embedding,
    prompts: Sequence[Sequence[SlicePrompt]] | None,
    choose_best: bool,
) -> tuple[Tensor, Tensor]:
    """One mask per prompt at the decoder's own resolution.

    Args:
        model: the SAM whose encoder made the embedding.
        embedding: of B slices.
        prompts: B lists of K prompts in pixels of the slice; None decodes without prompt (K = 1).
        choose_best: where a prompt is a lone click, which does not tell part from whole, take the one of the
            multi-mask outputs with the highest predicted IoU (Kirillov et al., Segment Anything, 2023); all other
            prompts use the single-mask token.

    Returns:
        logits (B, K, 4t, 4t) and predicted IoU (B, K), t the tokens per side.

    Raises:
        ValueError: not B lists of the same length K.
    """
    if prompts is None:
        out = model(image_embeddings=embedding.features, multimask_output=False)
        return out.pred_masks[:, 0], out.iou_scores[:, 0]
    if len(prompts) != len(embedding) or len({len(p) for p in prompts}) != 1:
        raise ValueError(f"{len(prompts)} lists of prompts do not fit {len(embedding)} slices of equal prompt count.")
    items = [(b, prompt) for b, row in enumerate(prompts) for prompt in row]
    masks: list[Tensor] = [torch.empty(0)] * len(items)
    scores: list[Tensor] = [torch.empty(0)] * len(items)
    # prompts of one kind and number of clicks go through the decoder together: transformers' padding points are
    # tokens like others and would change the masks
    kinds: dict[tuple[bool, int, bool], list[int]] = defaultdict(list)
    for n, (_, prompt) in enumerate(items):
        kinds[prompt.box is not None, len(prompt.labels), prompt.mask is not None].append(n)
    for members in kinds.values():
        for start in range(0, len(members), _BATCH):
            chosen = members[start : start + _BATCH]
            features = embedding.features[[items[n][0] for n in chosen]]
            batch = [items[n][1] for n in chosen]
            lone = choose_best and all(_is_lone_click(p) for p in batch)
            out = model(
                image_embeddings=features,
                multimask_output=lone,
                **_tensors(model, embedding.frame, batch, features.device),
            )
            best = out.iou_scores[:, 0].argmax(-1)
            for row, n in enumerate(chosen):
                masks[n], scores[n] = out.pred_masks[row, 0, best[row]], out.iou_scores[row, 0, best[row]]
    shape = (len(prompts), len(prompts[0]))
    return torch.stack(masks).unflatten(0, shape), torch.stack(scores).unflatten(0, shape)


def _is_lone_click(prompt: SlicePrompt) -> bool:
    return prompt.box is None and prompt.mask is None and len(prompt.labels) == 1


def _tensors(
    model: SamModel, frame: Frame, prompts: Sequence[SlicePrompt], device: torch.device
) -> dict[str, Tensor | None]:
    """The keyword arguments of SamModel for prompts of one kind, each with an image of its own (P = 1)."""
    points = np.stack([frame.to_model(p.points) for p in prompts])[:, None]
    labels = np.stack([p.labels for p in prompts])[:, None]
    boxes = [frame.to_model(np.reshape(p.box, (2, 2))).reshape(1, 4) for p in prompts if p.box is not None]
    side = 4 * model.config.prompt_encoder_config.image_embedding_size
    dense = [_mask_logits(p.mask, frame, side) for p in prompts if p.mask is not None]
    return {
        "input_points": torch.from_numpy(points).to(device) if labels.size else None,
        "input_labels": torch.from_numpy(labels).to(device) if labels.size else None,
        "input_boxes": torch.from_numpy(np.stack(boxes)).to(device) if boxes else None,
        "input_masks": torch.stack(dense).to(device) if dense else None,
    }


def _mask_logits(mask: np.ndarray, frame: Frame, side: int) -> Tensor:
    """(1, side, side) logits of a boolean mask of the slice."""
    small = Frame(frame.height, frame.width, side, frame.keep_aspect)
    probability = small.fit(torch.from_numpy(mask.astype(np.float32))[None], "bilinear")
    return (probability * 2 - 1) * _CERTAIN
