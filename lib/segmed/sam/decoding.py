"""Prompts in pixels of a slice to masks, by the prompt encoder and mask decoder of a SAM or SAM2."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from segmed.imaging.masks import slice_box
from segmed.imaging.prompts import SlicePrompt
from segmed.sam.embedding import Embedding
from segmed.sam.frame import Frame

if TYPE_CHECKING:
    from transformers import Sam2Model, SamModel

_CERTAIN = 10.0  # logit of a pixel of a mask prompt, METHODS 12.1
_BATCH = 32


def decode_low_resolution(
    model: SamModel | Sam2Model,
    embedding: Embedding,
    prompts: Sequence[Sequence[SlicePrompt]] | None,
    choose_best: bool,
) -> tuple[Tensor, Tensor]:
    """One mask per prompt at the decoder's own resolution.

    Args:
        model: the SAM whose encoder made the embedding.
        embedding: of B slices; of SAM2 with the two finer levels as extras, the finest first.
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
        out = model(image_embeddings=_features(model, embedding, slice(None)), multimask_output=False)
        return out.pred_masks[:, 0], out.iou_scores[:, 0]
    if len(prompts) != len(embedding) or len({len(p) for p in prompts}) != 1:
        raise ValueError(f"{len(prompts)} lists of prompts do not fit {len(embedding)} slices of equal prompt count.")
    items = [(b, _placed(prompt)) for b, row in enumerate(prompts) for prompt in row]
    found = _decode(model, embedding, items, lambda prompt: choose_best and _is_lone_click(prompt))
    best = [int(scores.argmax()) if len(scores) > 1 else 0 for _, scores in found]
    masks = torch.stack([masks[n] for (masks, _), n in zip(found, best, strict=True)])
    quality = torch.stack([scores[n] for (_, scores), n in zip(found, best, strict=True)])
    shape = (len(prompts), len(prompts[0]))
    return masks.unflatten(0, shape), quality.unflatten(0, shape)


def decode_all(
    model: SamModel | Sam2Model, embedding: Embedding, prompts: Sequence[SlicePrompt]
) -> tuple[Tensor, Tensor]:
    """All multi-mask outputs for each prompt on one slice: whole, part and part of a part.

    Returns:
        logits (N, M, 4t, 4t) and predicted IoU (N, M) of N prompts and M outputs.
    """
    found = _decode(model, embedding, [(0, _placed(prompt)) for prompt in prompts], lambda _: True)
    return torch.stack([masks for masks, _ in found]), torch.stack([scores for _, scores in found])


def _decode(
    model: SamModel | Sam2Model,
    embedding: Embedding,
    items: Sequence[tuple[int, SlicePrompt]],
    wants_all: Callable[[SlicePrompt], bool],
) -> list[tuple[Tensor, Tensor]]:
    """Logits (M, 4t, 4t) and predicted IoU (M,) of each prompt (on slice b), M = 1 unless all outputs are wanted."""
    found: list[tuple[Tensor, Tensor]] = [(torch.empty(0), torch.empty(0))] * len(items)
    # prompts of one kind and number of clicks go through the decoder together: transformers' padding points are
    # tokens like others and would change the masks
    kinds: dict[tuple[bool, int, bool, bool], list[int]] = defaultdict(list)
    for n, (_, prompt) in enumerate(items):
        kinds[prompt.box is not None, len(prompt.labels), prompt.mask is not None, wants_all(prompt)].append(n)
    for (*_, several), members in kinds.items():
        for start in range(0, len(members), _BATCH):
            chosen = members[start : start + _BATCH]
            batch = [items[n][1] for n in chosen]
            out = model(
                image_embeddings=_features(model, embedding, [items[n][0] for n in chosen]),
                multimask_output=several,
                **_tensors(model, embedding.frame, batch, embedding.features.device),
            )
            found_here = zip(out.pred_masks[:, 0], out.iou_scores[:, 0], strict=True)
            for n, one in zip(chosen, found_here, strict=True):
                found[n] = one
    return found


def _features(model: SamModel | Sam2Model, embedding: Embedding, rows: list[int] | slice) -> Tensor | list[Tensor]:
    """The image embeddings as the model takes them: SAM2 wants its finer levels, too."""
    from transformers import Sam2Model

    features = embedding.features[rows]
    return [*(extra[rows] for extra in embedding.extras), features] if isinstance(model, Sam2Model) else features


def _placed(prompt: SlicePrompt) -> SlicePrompt:
    """With a box where only the mask says what is meant: SAM has seen masks together with boxes or clicks only."""
    if prompt.box is None and prompt.mask is not None and prompt.mask.any() and not len(prompt.foreground):
        return replace(prompt, box=slice_box(prompt.mask))
    return prompt


def _is_lone_click(prompt: SlicePrompt) -> bool:
    return prompt.box is None and prompt.mask is None and len(prompt.labels) == 1


def _tensors(
    model: SamModel | Sam2Model, frame: Frame, prompts: Sequence[SlicePrompt], device: torch.device
) -> dict[str, Tensor | None]:
    """The keyword arguments of the model for prompts of one kind, each with an image of its own (P = 1)."""
    points = np.stack([frame.to_model(p.points) for p in prompts])[:, None]
    labels = np.stack([p.labels for p in prompts])[:, None]
    boxes = [frame.to_model(np.reshape(p.box, (2, 2))).reshape(1, 4) for p in prompts if p.box is not None]
    side = 4 * model.prompt_encoder.image_embedding_size[0]
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
