"""Prediction of masks: slices are encoded once, decoded for every prompt, and propagated through volumes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from segmed.imaging.picture import Picture
from segmed.imaging.prompts import Prompt, SlicePrompt
from segmed.imaging.scribbles import strokes_to_clicks
from segmed.imaging.store import ByteBoundedStore
from segmed.inference.cpu_fallback import CpuFallback
from segmed.inference.device_queue import DeviceQueue
from segmed.inference.predictor_steps import (
    has_thick_box,
    is_blank,
    probability_of,
    uncertainty_of,
    with_exclusions,
)
from segmed.inference.progress import Masks, Progress
from segmed.inference.propagation import PropagationRule, propagate
from segmed.inference.refinement.refinement import Refinement, Rough
from segmed.inference.volume_propagation import track_objects, walk_neighbours
from segmed.methods.base.segmenter import Logits, Segmenter, StackPrompt
from segmed.methods.detector.boxes import Boxes
from segmed.sam.embedding import Embedding

T = TypeVar("T")


class Predictor:
    """A segmenter with a cache of embeddings and a queue, which predicts masks for pictures.

    Args:
        segmenter: The method.
        embeddings: Cache of slice embeddings, shared by all predictors.
        queue: The queue of the device, which runs one batch of slices at a time.
        batch: Number of slices encoded together; 1 is best for large models on CPUs.
        warning: A warning that is returned with every answer, such as the reason for a fallback method.
        loose_parts: Whether propagation by neighbouring slices keeps parts that are not connected.
        fallback: What takes over if the device has no memory left; None leaves the error to the caller.

    Attributes:
        origin: Version in the registry and checksum of the weights, for the provenance of masks.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        embeddings: ByteBoundedStore[Embedding],
        queue: DeviceQueue | None = None,
        batch: int = 1,
        warning: str = "",
        loose_parts: bool = False,
        fallback: CpuFallback | None = None,
    ) -> None:
        self.segmenter = segmenter
        self.embeddings = embeddings
        self.queue = queue or DeviceQueue()
        self.batch = batch
        self.warning = warning
        self.loose_parts = loose_parts
        self.fallback = fallback
        self.origin = "", ""
        self.encoded = 0

    def run(self, work: Callable[[], T]) -> T:
        """Run `work` when the turn of the device comes; on the CPU from then on if its memory is full.

        `work` has to take `segmenter` from here when it runs, because that may change.
        """
        try:
            return self.queue.run(work)
        except torch.OutOfMemoryError as error:
            self.leave_device(error)
            return self.queue.run(work)

    def leave_device(self, error: torch.OutOfMemoryError) -> None:
        """Let the fallback take over, or raise `error` if there is none."""
        if self.fallback is None:
            raise error
        self.segmenter, self.queue = self.fallback.take_over(error)
        if self.fallback.warning not in self.warning:
            self.warning = f"{self.fallback.warning} {self.warning}".strip()

    def segment_slices(
        self,
        picture: Picture,
        prompt: Prompt,
        progress: Progress | None = None,
        refine: Refinement | None = None,
    ) -> Masks:
        """Segment the prompted slices, and apply `refine` to each mask.

        Returns:
            Masks (H, W) by slice index.
        """
        prompt = self._understood(prompt)
        prompts = {k: p for k in prompt.slices() if (p := prompt.on_slice(k)) is not None}
        if not self.segmenter.corrects_masks or prompt.is_outline:
            return self.segment(picture, prompts, progress, refine)
        final = {k: p.mask for k, p in prompts.items() if p.mask is not None and p.is_satisfied}
        others = {k: p for k, p in prompts.items() if k not in final}
        return final | self.segment(picture, others, progress, refine)

    def segment_volume(
        self,
        picture: Picture,
        prompt: Prompt,
        progress: Progress | None = None,
        refine: Refinement | None = None,
    ) -> Masks:
        """Segment a volume: a box over several slices prompts each of them, otherwise masks are propagated.

        Slices on which the prompt has a mask are prompted by it. `refine` is applied to each mask before it
        is propagated; a method with its own memory stores the refined masks of the prompted slices.

        Returns:
            Masks (H, W) by slice index.
        """
        if self.segmenter.follows_neighbours:
            return walk_neighbours(self, picture, strokes_to_clicks(prompt), progress, refine)
        prompt = self._understood(prompt)
        prompts = StackPrompt.of(prompt).shown
        if self.segmenter.has_memory and not has_thick_box(prompt):
            return track_objects(self, picture, [prompt], progress, refine)[0]
        masks = self.segment(picture, prompts, progress, refine)
        if has_thick_box(prompt):
            return masks
        done, depth = len(masks), picture.shape[2]

        def predict(k: int, slice_prompt: SlicePrompt) -> np.ndarray:
            nonlocal done
            if progress:
                progress(min(done, depth), depth, {})
            done += 1
            with_clicks = with_exclusions(slice_prompt, prompt, k, self.segmenter.carries_mask)
            return self.segment(picture, {k: with_clicks}, None, refine)[k]

        def found(k: int, mask: np.ndarray) -> None:
            if progress:
                progress(min(done, depth), depth, {k: mask})

        rule = PropagationRule(margin=self.segmenter.margin)
        return propagate(masks, depth, predict, picture.slice, rule, found)

    def segment_objects(
        self,
        picture: Picture,
        prompts: Sequence[Prompt],
        progress: Progress | None = None,
        refine: Refinement | None = None,
    ) -> list[Masks]:
        """Segment several objects as `segment_volume` does; a method with memory tracks them together."""
        prompts = [self._understood(p) for p in prompts]
        together = [p for p in prompts if self.segmenter.has_memory and not has_thick_box(p)]
        found = dict(
            zip(map(id, together), track_objects(self, picture, together, progress, refine), strict=True)
        )
        return [
            found[id(p)] if id(p) in found else self.segment_volume(picture, p, progress, refine)
            for p in prompts
        ]

    def segment_classes(self, picture: Picture, progress: Progress | None = None) -> np.ndarray:
        """Label a whole volume without a prompt.

        Returns:
            The label map (I, J, K), uint8: 0 for background, n for class n of the segmenter's `labels`.
        """
        size, labels = (picture.shape[1], picture.shape[0]), np.zeros(picture.shape, np.uint8)
        for start in range(0, picture.shape[2], self.batch):
            chunk = range(start, min(start + self.batch, picture.shape[2]))

            @torch.inference_mode()
            def decode(chunk: range = chunk) -> np.ndarray:
                logits = self.segmenter.decode(self.embedding(picture, chunk), None, size)
                return logits.masks.argmax(1).to(torch.uint8).cpu().numpy()

            labels[:, :, chunk.start : chunk.stop] = self.run(decode).transpose(2, 1, 0)
            labels[:, :, [k for k in chunk if is_blank(picture, k)]] = 0
            if progress:
                progress(chunk.stop, picture.shape[2], {k: labels[:, :, k].T for k in chunk})
        return labels

    def boxes(self, picture: Picture, progress: Progress | None = None) -> list[Boxes]:
        """Detect the objects on each slice as boxes; blank slices have none.

        Raises:
            ValueError: If the method is not a detector.
        """
        if not hasattr(self.segmenter, "detect"):
            raise ValueError("This model finds no boxes. Take the model 'detector'.")
        found: list[Boxes] = []
        for k in range(picture.shape[2]):
            blank = is_blank(picture, k)
            found.append(Boxes.none() if blank else self.run(partial(self._detect, picture, k)))
            if progress:
                progress(k + 1, picture.shape[2], {})
        return found

    def uncertainty(self, picture: Picture, prompt: Prompt) -> Masks:
        """Compute the uncertainty of the method on the prompted slices.

        Returns:
            Maps (H, W), uint8, by slice index: standard deviation of the probability in per cent of 0.5, its
            largest possible value.

        Raises:
            ValueError: If the method gives no uncertainty.
        """
        prompt = self._understood(prompt)
        prompts = {k: p for k in prompt.slices() if (p := prompt.on_slice(k)) is not None}
        return self.predict(picture, prompts, read=uncertainty_of)

    def _detect(self, picture: Picture, k: int) -> Boxes:
        found: list[Boxes] = self.segmenter.detect(self.embedding(picture, [k]))  # type: ignore[operator]
        return found[0]

    def embedding(self, picture: Picture, ks: Sequence[int]) -> Embedding:
        """Embeddings of slices, from the cache if possible; to be called within the device queue."""
        keys = [(self.segmenter.version, picture.key, k) for k in ks]
        found = {k: self.embeddings.get(key) for k, key in zip(ks, keys, strict=True)}
        missing = [k for k in ks if found[k] is None]
        if missing:
            fresh = self.segmenter.embed([picture.slice(k) for k in missing])
            self.encoded += len(missing)
            for k, part in zip(missing, fresh.to("cpu").split(), strict=True):
                found[k] = part
                self.embeddings.put((self.segmenter.version, picture.key, k), part, part.nbytes)
            if len(missing) == len(ks):
                return fresh
        device = next(self.segmenter.parameters(), torch.empty(0)).device
        return Embedding.join([e for e in found.values() if e is not None]).to(device)

    def _understood(self, prompt: Prompt) -> Prompt:
        """Convert the scribbles of a prompt to clicks unless the method reads scribbles."""
        return prompt if self.segmenter.takes_scribbles else strokes_to_clicks(prompt)

    def segment(
        self,
        picture: Picture,
        prompts: Mapping[int, SlicePrompt],
        progress: Progress | None,
        refine: Refinement | None,
    ) -> Masks:
        """Masks (H, W) of slices by slice index, refined if `refine` is given."""
        if refine is None:
            return self.predict(picture, prompts, progress)
        masks: Masks = {}
        tell = progress or (lambda *_: None)
        ks = list(prompts)
        for start in range(0, len(ks), self.batch):
            chunk = {k: prompts[k] for k in ks[start : start + self.batch]}
            found = self.predict(picture, chunk, read=probability_of)
            for k, probability in found.items():
                tell(len(masks), len(prompts), {})
                masks[k] = self.refined(picture, k, probability, prompts[k], refine)
                tell(len(masks), len(prompts), {k: masks[k]})
        return masks

    def refined(
        self, picture: Picture, k: int, probability: np.ndarray, prompt: SlicePrompt, refine: Refinement
    ) -> np.ndarray:
        def again(other: SlicePrompt) -> np.ndarray:
            return self.predict(picture, {k: other}, read=probability_of)[k]

        return refine(Rough(picture.slice(k), probability, prompt, again))

    def predict(
        self,
        picture: Picture,
        prompts: Mapping[int, SlicePrompt],
        progress: Progress | None = None,
        read: Callable[[Logits], Tensor] = lambda logits: logits.masks > 0,
    ) -> Masks:
        """Predict masks (H, W) by slice index in batches, between which other requests can run."""
        size = picture.shape[1], picture.shape[0]
        tell = progress or (lambda *_: None)
        masks: Masks = {k: np.zeros(size, bool) for k in prompts if is_blank(picture, k)}
        ks = [k for k in prompts if k not in masks]
        for start in range(0, len(ks), self.batch):
            chunk = ks[start : start + self.batch]

            @torch.inference_mode()
            def decode(chunk: Sequence[int] = chunk) -> np.ndarray:
                embedding = self.embedding(picture, chunk)
                logits = self.segmenter.decode(embedding, [[prompts[k]] for k in chunk], size)
                return read(logits)[:, 0].cpu().numpy()

            tell(len(masks), len(prompts), {})
            masks.update(zip(chunk, self.run(decode), strict=True))
            tell(len(masks), len(prompts), {k: masks[k] for k in chunk})
        return masks
