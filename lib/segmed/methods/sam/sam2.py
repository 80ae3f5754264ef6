"""SAM2: masks from clicks or a box on a slice, and propagation through volumes by its memory.

Source: Ravi et al., SAM 2: Segment Anything in Images and Videos (2024).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from segmed.imaging.prompts import SlicePrompt
from segmed.methods.base.method import Parts
from segmed.methods.base.segmenter import Logits, StackPrompt
from segmed.methods.sam.sam import Sam
from segmed.sam.embedding import Embedding
from segmed.sam.frame import Frame
from segmed.sam.preparation import SAM2, Preparation
from segmed.sam.sam2 import Sam2Weights, StackSession, load_sam2

_MEDSAM2_SIDE = 512  # px; Ma et al., MedSAM2: Segment Anything in 3D Medical Images and Videos (2025)
_PATIENCE = 3  # consecutive slices without the object after which it has ended


@dataclass(frozen=True)
class _Plan:
    """The prompts of an object as they are put into the memory.

    Attributes:
        shown: Prompts by slice that show the object; those with a box or a mask, or all if there are none.
        corrections: Clicks (N, 2) on other slices and their labels (N,), 1 on the object and 0 beside it.
    """

    shown: Mapping[int, SlicePrompt]
    corrections: Mapping[int, tuple[np.ndarray, np.ndarray]]

    @classmethod
    def of(cls, prompt: StackPrompt) -> _Plan:
        """Divide the prompts of an object."""
        sure = {k: p for k, p in prompt.shown.items() if p.box is not None or p.mask is not None}
        shown = sure or prompt.shown
        clicks = {k: (p.points, p.labels) for k, p in prompt.shown.items() if k not in shown}
        beside = {k: (points, np.zeros(len(points), np.int64)) for k, points in prompt.excluded.items()}
        return cls(shown, clicks | beside)

    @property
    def known(self) -> set[int]:
        """Slices whose masks do not come from the memory alone."""
        return {*self.shown, *self.corrections}


class Sam2(Sam):
    """SAM2 on slices stretched to the input size and normalised as ImageNet; logits are resampled.

    Embeddings hold the coarsest level as features and the two finer ones as extras.

    Args:
        weights: A SAM2 with or without memory; without it, objects are propagated as with SAM.
        version: Version of the weights.
    """

    default_preparation: ClassVar[Preparation] = SAM2
    no_graphs = "its memory grows with the slices that it has seen"

    def __init__(self, weights: Sam2Weights, version: str = "0") -> None:
        super().__init__(weights.image, version)
        self.memory = weights.memory
        self.dtype = weights.dtype
        self.has_memory = weights.memory is not None

    @property
    def _device(self) -> torch.device:
        return next(self.parameters()).device

    def encode(self, images: Tensor) -> Embedding:
        pixels = self.preparation.normalise(images)
        with torch.autocast(pixels.device.type, self.dtype, enabled=self.dtype != torch.float32):
            fine, middle, coarse = self.model.vision_encoder(pixels).fpn_hidden_states
            decoder = self.model.mask_decoder
            levels = coarse, decoder.conv_s0(fine), decoder.conv_s1(middle)
        features, *extras = (level.float() for level in levels)
        return Embedding(features, Frame(images.shape[2], images.shape[3], images.shape[3]), tuple(extras))

    def decode(
        self, embedding: Embedding, prompts: Sequence[Sequence[SlicePrompt]] | None, size: tuple[int, int]
    ) -> Logits:
        return super().decode(self._alone(embedding), prompts, size)

    def candidates(
        self, embedding: Embedding, prompts: Sequence[SlicePrompt], size: tuple[int, int]
    ) -> Logits:
        return super().candidates(self._alone(embedding), prompts, size)

    @torch.inference_mode()
    def segment_stack(
        self,
        embedding: Callable[[int], Embedding],
        depth: int,
        prompts: Sequence[StackPrompt],
        size: tuple[int, int],
    ) -> Iterator[tuple[int, int, Tensor]]:
        """Track objects: prompted slices first, then upwards and downwards from the first one of each.

        Each object has a memory of its own, and a slice is encoded once for all of them. An object without
        pixels on three consecutive slices has ended, unless it is prompted again further on. Where a box or a
        mask shows the object, clicks on other slices are corrections: the object is followed to the slice,
        its mask there is corrected, and it is followed again with the corrected slice in its memory. A slice
        whose prompt has a mask is remembered by that mask, or, if the prompt has a box or clicks as well, by
        the model's mask for all of them.
        """
        assert self.memory is not None
        cached = functools.lru_cache(maxsize=1)(embedding)

        def levels(k: int) -> tuple[Tensor, ...]:
            embedded = cached(k)
            return *embedded.extras, embedded.features

        shape = torch.Size((1, *cached(min(prompts[0].shown)).features.shape[1:]))
        position = self.model.vision_encoder.neck.position_encoding(shape, self._device, torch.float32)
        sessions = [StackSession(depth, levels, position) for _ in prompts]
        frame, reach = cached(min(prompts[0].shown)).frame, self._reach
        plans = [_Plan.of(prompt) for prompt in prompts]
        for n, (session, plan) in enumerate(zip(sessions, plans, strict=True)):
            for k in sorted(plan.shown):
                yield n, k, self._show(session, k, plan.shown[k], cached(k), size)
        for n, (session, plan) in enumerate(zip(sessions, plans, strict=True)):
            for k, low in self._correct(session, plan, frame):
                yield n, k, self._restore(frame, low, size)[0, 0]
        first = [min(plan.known) for plan in plans]
        last = [max(plan.known) for plan in plans]
        for step in (1, -1):
            unseen = [0] * len(prompts)
            for k in range(min(first) + 1, depth) if step > 0 else range(max(first) - 1, -1, -1):
                for n, (session, plan) in enumerate(zip(sessions, plans, strict=True)):
                    over = unseen[n] >= _PATIENCE and (step < 0 or k > last[n])
                    if over or k in plan.known or (k - first[n]) * step < 0:
                        continue
                    low = self._advance(session, k, step < 0)
                    unseen[n] = 0 if (low > 0).any() else unseen[n] + 1
                    far = k - step * reach
                    if step < 0 or far > first[n] + reach:  # nearer ones are needed on the way down
                        session.forget(far)
                    yield n, k, self._restore(frame, low, size)[0, 0]
                if all(count >= _PATIENCE for count in unseen) and (step < 0 or k >= max(last)):
                    break

    def _show(
        self, session: StackSession, k: int, prompt: SlicePrompt, embedding: Embedding, size: tuple[int, int]
    ) -> Tensor:
        """Add a prompted slice to the memory and return its logits (H, W)."""
        frame, device = embedding.frame, self._device
        if prompt.mask is None:
            corners = np.zeros((0, 2)) if prompt.box is None else np.reshape(prompt.box, (2, 2))
            points = frame.to_model(np.concatenate([corners, prompt.points]))
            labels = np.concatenate([np.array([2, 3])[: len(corners)], prompt.labels])
            session.show(k, torch.from_numpy(points).to(device), torch.from_numpy(labels).to(device))
            return self._restore(frame, self._advance(session, k, False), size)[0, 0]
        logits = torch.from_numpy(prompt.mask).float() * 2 - 1
        if prompt.box is not None or len(prompt.labels):
            logits = self.decode(embedding, [[prompt]], (frame.height, frame.width)).masks[0, 0].cpu()
        mask = frame.fit((logits > 0).float()[None], "bilinear")[0] >= 0.5
        session.show_mask(k, mask.float().to(device))
        self._advance(session, k, False)
        return torch.nn.functional.interpolate(logits[None, None], size, mode="bilinear")[0, 0]

    def _correct(self, session: StackSession, plan: _Plan, frame: Frame) -> Iterator[tuple[int, Tensor]]:
        """Correct slices by clicks on what the memory predicts there, the nearest to known slices first.

        The slices on the way are followed for this only, and forgotten: they are followed again when the
        corrected slice is known.

        Yields:
            Index and low-resolution logits (1, 1, h, w) of each corrected slice.
        """
        known, left = set(plan.shown), dict(plan.corrections)
        while left:
            start, k = min(((a, b) for a in known for b in left), key=lambda pair: abs(pair[0] - pair[1]))
            step = 1 if k > start else -1
            for on_the_way in range(start + step, k, step):
                self._advance(session, on_the_way, step < 0)
                session.forget(on_the_way - step * self._reach)
            self._advance(session, k, step < 0)
            points, labels = left.pop(k)
            device = self._device
            session.show(
                k, torch.from_numpy(frame.to_model(points)).to(device), torch.from_numpy(labels).to(device)
            )
            low = self._advance(session, k, step < 0)
            session.keep(k)
            known.add(k)
            for on_the_way in range(start + step, k, step):
                session.forget(on_the_way)
            yield k, low

    @property
    def _reach(self) -> int:
        """Number of slices that the memory looks back, apart from prompted ones."""
        assert self.memory is not None
        return max(self.memory.num_maskmem, self.memory.config.max_object_pointers_in_encoder)

    def _advance(self, session: StackSession, k: int, down: bool) -> Tensor:
        assert self.memory is not None
        return self.memory(inference_session=session, frame_idx=k, reverse=down).pred_masks

    def _alone(self, embedding: Embedding) -> Embedding:
        """Add the embedding that SAM2 uses for slices without memory."""
        none = self.model.no_memory_embedding[0, 0][:, None, None]
        return replace(embedding, features=embedding.features + none)


def _build(weights: Sam2Weights, version: str) -> Sam2:
    return Sam2(weights, f"sam2-{version}")


def _load_medsam2(source: str, image_size: int | None, dtype: torch.dtype) -> tuple[Sam2Weights, str]:
    """`load_sam2` at the input size that MedSAM2 was trained with."""
    return load_sam2(source, image_size or _MEDSAM2_SIDE, dtype)


PARTS = Parts(_build, load_sam2)
MEDSAM2 = Parts(_build, _load_medsam2)
