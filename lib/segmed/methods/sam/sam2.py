"""SAM2: masks from clicks or a box on a slice, and propagation through volumes by its memory.

Source: Ravi et al., SAM 2: Segment Anything in Images and Videos (2024).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from segmed.imaging.prompts import SlicePrompt
from segmed.methods.base.method import Parts
from segmed.methods.base.segmenter import Logits, StackPrompt
from segmed.methods.sam.sam import Sam
from segmed.sam.embedding import Embedding
from segmed.sam.frame import Frame
from segmed.sam.sam2 import Sam2Weights, StackSession, load_sam2

_PATIENCE = 3  # consecutive slices without the object after which it has ended


class Sam2(Sam):
    """SAM2 on slices stretched to the input size and normalised as ImageNet; logits are resampled.

    Embeddings hold the coarsest level as features and the two finer ones as extras.

    Args:
        weights: A SAM2 with or without memory; without it, objects are propagated as with SAM.
        version: Version of the weights.
    """

    no_graphs = "its memory grows with the slices that it has seen"

    keep_aspect = False

    def __init__(self, weights: Sam2Weights, version: str = "0") -> None:
        super().__init__(weights.image, version)
        self.memory = weights.memory
        self.dtype = weights.dtype
        self.has_memory = weights.memory is not None

    def encode(self, images: Tensor) -> Embedding:
        pixels = (images - self.mean) / self.sd
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
        pixels on three consecutive slices has ended, unless it is prompted again further on. Background
        clicks on a slice without another prompt correct the mask from memory there. A slice whose prompt has
        a mask is remembered by that mask, or, if the prompt has a box or clicks as well, by the model's mask
        for all of them.
        """
        assert self.memory is not None
        cached = functools.lru_cache(maxsize=1)(embedding)

        def levels(k: int) -> tuple[Tensor, ...]:
            embedded = cached(k)
            return *embedded.extras, embedded.features

        shape = torch.Size((1, *cached(min(prompts[0].shown)).features.shape[1:]))
        position = self.model.vision_encoder.neck.position_encoding(shape, self.mean.device, torch.float32)
        sessions = [StackSession(depth, levels, position) for _ in prompts]
        for n, (session, prompt) in enumerate(zip(sessions, prompts, strict=True)):
            for k in sorted(prompt.shown):
                yield n, k, self._show(session, k, prompt.shown[k], cached(k), size)
        reach = max(self.memory.num_maskmem, self.memory.config.max_object_pointers_in_encoder)
        first = [min(prompt.shown) for prompt in prompts]
        last = [max(prompt.shown) for prompt in prompts]
        for step in (1, -1):
            unseen = [0] * len(prompts)
            for k in range(min(first) + 1, depth) if step > 0 else range(max(first) - 1, -1, -1):
                for n, (session, prompt) in enumerate(zip(sessions, prompts, strict=True)):
                    over = unseen[n] >= _PATIENCE and (step < 0 or k > last[n])
                    if over or k in prompt.shown or (k - first[n]) * step < 0:
                        continue
                    low = self._track(session, k, step < 0, prompt.excluded.get(k), cached(k).frame)
                    unseen[n] = 0 if (low > 0).any() else unseen[n] + 1
                    far = k - step * reach
                    # Nearer slices are needed on the way back.
                    if not first[n] - reach <= far <= last[n] + reach:
                        session.forget(far)
                    yield n, k, self._restore(cached(k).frame, low, size)[0, 0]
                if all(count >= _PATIENCE for count in unseen) and (step < 0 or k >= max(last)):
                    break

    def _show(
        self, session: StackSession, k: int, prompt: SlicePrompt, embedding: Embedding, size: tuple[int, int]
    ) -> Tensor:
        """Add a prompted slice to the memory and return its logits (H, W)."""
        frame, device = embedding.frame, self.mean.device
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

    def _track(
        self, session: StackSession, k: int, down: bool, excluded: np.ndarray | None, frame: Frame
    ) -> Tensor:
        """Low-resolution logits (1, 1, h, w) of a slice from memory and its background clicks (N, 2)."""
        low = self._advance(session, k, down)
        if excluded is None:
            return low
        points = torch.from_numpy(frame.to_model(excluded)).to(low.device)
        session.show(k, points, torch.zeros(len(points), device=low.device))
        return self._advance(session, k, down)

    def _advance(self, session: StackSession, k: int, down: bool) -> Tensor:
        assert self.memory is not None
        return self.memory(inference_session=session, frame_idx=k, reverse=down).pred_masks

    def _alone(self, embedding: Embedding) -> Embedding:
        """Add the embedding that SAM2 uses for slices without memory."""
        none = self.model.no_memory_embedding[0, 0][:, None, None]
        return replace(embedding, features=embedding.features + none)


def _build(weights: Sam2Weights, version: str) -> Sam2:
    return Sam2(weights, f"sam2-{version}")


PARTS = Parts(_build, load_sam2)
