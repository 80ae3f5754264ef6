"""Decoding of prompts to masks by the prompt encoder and mask decoder of a SAM or SAM2."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from segmed.imaging.labels.masks import slice_box
from segmed.imaging.prompts import SlicePrompt
from segmed.sam.embedding import Embedding
from segmed.sam.frame import Frame

if TYPE_CHECKING:
    from transformers import Sam2Model, SamModel

_MASK_LOGIT = 10.0  # absolute logit of a pixel of a mask prompt
_BATCH = 32  # prompts per call of the decoder


def decode_low_resolution(
    model: SamModel | Sam2Model,
    embedding: Embedding,
    prompts: Sequence[Sequence[SlicePrompt]] | None,
    choose_best: bool,
) -> tuple[Tensor, Tensor]:
    """Decode one mask per prompt at the decoder's own resolution.

    Args:
        model: The SAM whose encoder made the embedding.
        embedding: Features of B slices; those of SAM2 have the two finer levels as extras, the finest first.
        prompts: B lists of K prompts in pixels of the slice; None decodes without prompt (K = 1).
        choose_best: For a single click, which can mean a part or the whole, take the multi-mask output with
            the highest predicted IoU (Kirillov et al., Segment Anything, 2023). All other prompts use the
            single-mask token.

    Returns:
        Logits (B, K, 4t, 4t) and predicted IoU (B, K), where t is the number of tokens per side.

    Raises:
        ValueError: If `prompts` is not B lists of the same length K.
    """
    if prompts is None:
        out = model(image_embeddings=_features(model, embedding, slice(None)), multimask_output=False)
        return out.pred_masks[:, 0], out.iou_scores[:, 0]
    if len(prompts) != len(embedding) or len({len(p) for p in prompts}) != 1:
        counts = [len(p) for p in prompts]
        raise ValueError(
            f"{len(prompts)} lists of prompts (lengths {counts}) do not fit {len(embedding)} slices; "
            "give one list per slice, all of the same length."
        )
    # Flatten to B * K prompts with the index of their slice, keep one of the M outputs of each, (4t, 4t), and
    # restore the two leading dimensions: argmax over M of the predicted IoU, or the only output.
    items = [(b, _add_mask_box(prompt)) for b, row in enumerate(prompts) for prompt in row]
    outputs = _decode(model, embedding, items, lambda prompt: choose_best and _is_single_click(prompt))
    best = [int(scores.argmax()) if len(scores) > 1 else 0 for _, scores in outputs]
    masks = torch.stack([masks[n] for (masks, _), n in zip(outputs, best, strict=True)])
    quality = torch.stack([scores[n] for (_, scores), n in zip(outputs, best, strict=True)])
    shape = (len(prompts), len(prompts[0]))
    return masks.unflatten(0, shape), quality.unflatten(0, shape)


def decode_all(
    model: SamModel | Sam2Model, embedding: Embedding, prompts: Sequence[SlicePrompt]
) -> tuple[Tensor, Tensor]:
    """Decode all multi-mask outputs of each prompt on one slice: whole, part and part of a part.

    Args:
        model: The SAM whose encoder made the embedding.
        embedding: Features of one slice.
        prompts: N prompts in pixels of the slice.

    Returns:
        Logits (N, M, 4t, 4t) and predicted IoU (N, M) of N prompts and M outputs.
    """
    outputs = _decode(model, embedding, [(0, _add_mask_box(prompt)) for prompt in prompts], lambda _: True)
    return torch.stack([masks for masks, _ in outputs]), torch.stack([scores for _, scores in outputs])


def _decode(
    model: SamModel | Sam2Model,
    embedding: Embedding,
    items: Sequence[tuple[int, SlicePrompt]],
    wants_all: Callable[[SlicePrompt], bool],
) -> list[tuple[Tensor, Tensor]]:
    """Decode (slice index, prompt) each to logits (M, 4t, 4t) and predicted IoU (M,), M = 1 unless all."""
    outputs: list[tuple[Tensor, Tensor]] = [(torch.empty(0), torch.empty(0))] * len(items)
    # Only prompts of one kind and number of clicks share a batch: transformers pads shorter lists with points
    # that the decoder attends to like any other, which would change the masks.
    kinds: dict[tuple[bool, int, bool, bool], list[int]] = defaultdict(list)
    for n, (_, prompt) in enumerate(items):
        kind = prompt.box is not None, len(prompt.labels), prompt.mask is not None, wants_all(prompt)
        kinds[kind].append(n)
    for (*_, several), members in kinds.items():
        for start in range(0, len(members), _BATCH):
            chosen = members[start : start + _BATCH]
            batch = [items[n][1] for n in chosen]
            out = model(
                image_embeddings=_features(model, embedding, [items[n][0] for n in chosen]),
                multimask_output=several,
                **_tensors(model, embedding.frame, batch, embedding.features.device),
            )
            decoded = zip(out.pred_masks[:, 0], out.iou_scores[:, 0], strict=True)
            for n, output in zip(chosen, decoded, strict=True):
                outputs[n] = output
    return outputs


def _features(
    model: SamModel | Sam2Model, embedding: Embedding, rows: list[int] | slice
) -> Tensor | list[Tensor]:
    """The image embeddings of some slices as the model takes them: SAM2 also needs its finer levels."""
    from transformers import Sam2Model

    features = embedding.features[rows]
    if isinstance(model, Sam2Model):
        return [*(extra[rows] for extra in embedding.extras), features]
    return features


def _add_mask_box(prompt: SlicePrompt) -> SlicePrompt:
    """Add the box of the mask to a mask-only prompt: SAM was trained on masks with boxes or clicks only."""
    if prompt.box is None and prompt.mask is not None and prompt.mask.any() and not len(prompt.foreground):
        return replace(prompt, box=slice_box(prompt.mask))
    return prompt


def _is_single_click(prompt: SlicePrompt) -> bool:
    return prompt.box is None and prompt.mask is None and len(prompt.labels) == 1


def _tensors(
    model: SamModel | Sam2Model, frame: Frame, prompts: Sequence[SlicePrompt], device: torch.device
) -> dict[str, Tensor | None]:
    """The keyword arguments of the model for N prompts of one kind, each with an image of its own.

    Points are (N, 1, clicks, 2), labels (N, 1, clicks), boxes (N, 1, 4) and masks (N, 1, 4t, 4t).
    """
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
    """Logits of a boolean mask of the slice, (1, side, side).

    With p the share of the mask in a pixel after resampling, the logit is (2 p - 1) times `_MASK_LOGIT`.
    """
    small = Frame(frame.height, frame.width, side, frame.keep_aspect)
    probability = small.fit(torch.from_numpy(mask.astype(np.float32))[None], "bilinear")
    return (probability * 2 - 1) * _MASK_LOGIT
