"""From a picture and a prompt to a mask: slices encoded once, decoded for every prompt, carried through volumes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from segmed.imaging.picture import Picture
from segmed.imaging.prompts import Prompt, SlicePrompt
from segmed.imaging.scribbles import strokes_to_clicks
from segmed.imaging.store import ByteBoundedStore
from segmed.methods.boxes import Boxes
from segmed.methods.device_queue import DeviceQueue
from segmed.methods.neighbour_walk import NeighbourWalk
from segmed.methods.refinement import Refinement, Rough
from segmed.methods.segmenter import Logits, Segmenter, StackPrompt
from segmed.sam.embedding import Embedding
from segmed.sam.propagate import PropagationRule, box_around, propagate

Progress = Callable[[int, int], None]
Masks = dict[int, np.ndarray]


class Predictor:
    """Runs one segmenter on pictures.

    Args:
        segmenter: the method.
        embeddings: cache of slice embeddings, shared by all predictors.
        queue: one per device; takes one batch of slices at a time.
        batch: slices encoded together; 1 is best for large models on CPUs.
        warning: what every answer tells the user, such as that another method had to take over.
        loose_parts: whether parts that are not connected with the object are kept where a volume is filled by
            neighbouring slices.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        embeddings: ByteBoundedStore[Embedding],
        queue: DeviceQueue | None = None,
        batch: int = 1,
        warning: str = "",
        loose_parts: bool = False,
    ) -> None:
        self.segmenter = segmenter
        self.embeddings = embeddings
        self.queue = queue or DeviceQueue()
        self.batch = batch
        self.warning = warning
        self.loose_parts = loose_parts
        self.encoded = 0

    def segment_slices(
        self, picture: Picture, prompt: Prompt, progress: Progress | None = None, refine: Refinement | None = None
    ) -> Masks:
        """Fill the slices that the user pointed at, and do to each mask what `refine` does.

        Returns:
            Masks (H, W) by slice.
        """
        prompt = self._understood(prompt)
        prompts = {k: p for k in prompt.slices() if (p := prompt.on_slice(k)) is not None}
        if not self.segmenter.corrects_masks:
            return self._segment(picture, prompts, progress, refine)
        right = {k: p.mask for k, p in prompts.items() if p.mask is not None and p.is_satisfied}
        return right | self._segment(picture, {k: p for k, p in prompts.items() if k not in right}, progress, refine)

    def segment_volume(
        self, picture: Picture, prompt: Prompt, progress: Progress | None = None, refine: Refinement | None = None
    ) -> Masks:
        """Fill the volume: a box with several slices prompts each of them, else slices are propagated.

        Slices on which the prompt has a mask are prompted by it. `refine` is done to each mask before it is carried on;
        a method that carries objects by its own memory remembers the refined masks of the prompted slices.

        Returns:
            Masks (H, W) by slice.
        """
        prompt = self._understood(prompt)
        if self.segmenter.follows_neighbours:
            return self._walk(picture, prompt, progress, refine)
        prompts = StackPrompt.of(prompt).shown
        if self.segmenter.has_memory and not _is_thick(prompt):
            return self._remember(picture, [prompt], progress, refine)[0]
        masks = self._segment(picture, prompts, progress, refine)
        if _is_thick(prompt):
            return masks
        done = len(masks)

        def predict(k: int, slice_prompt: SlicePrompt) -> np.ndarray:
            nonlocal done
            done += 1
            if progress:
                progress(min(done, picture.shape[2]), picture.shape[2])
            carried = _with_clicks(slice_prompt, prompt, k, self.segmenter.carries_mask)
            return self._segment(picture, {k: carried}, None, refine)[k]

        rule = PropagationRule(margin=self.segmenter.margin)
        return propagate(masks, picture.shape[2], predict, picture.slice, rule)

    def segment_objects(
        self,
        picture: Picture,
        prompts: Sequence[Prompt],
        progress: Progress | None = None,
        refine: Refinement | None = None,
    ) -> list[Masks]:
        """As `segment_volume`, for several objects; a method with a memory carries them together, slice by slice."""
        prompts = [self._understood(p) for p in prompts]
        together = [p for p in prompts if self.segmenter.has_memory and not _is_thick(p)]
        found = dict(zip(map(id, together), self._remember(picture, together, progress, refine), strict=True))
        return [found[id(p)] if id(p) in found else self.segment_volume(picture, p, progress, refine) for p in prompts]

    def segment_classes(self, picture: Picture, progress: Progress | None = None) -> np.ndarray:
        """Label a whole volume without a prompt.

        Returns:
            (I, J, K) uint8, 0 for background, else the class as counted in the segmenter's `labels`.
        """
        size, labels = (picture.shape[1], picture.shape[0]), np.zeros(picture.shape, np.uint8)
        for start in range(0, picture.shape[2], self.batch):
            chunk = range(start, min(start + self.batch, picture.shape[2]))

            @torch.inference_mode()
            def decode(chunk: range = chunk) -> np.ndarray:
                logits = self.segmenter.decode(self.embedding(picture, chunk), None, size)
                return logits.masks.argmax(1).to(torch.uint8).cpu().numpy()

            labels[:, :, chunk.start : chunk.stop] = self.queue.run(decode).transpose(2, 1, 0)
            labels[:, :, [k for k in chunk if is_blank(picture, k)]] = 0
            if progress:
                progress(chunk.stop, picture.shape[2])
        return labels

    def boxes(self, picture: Picture, progress: Progress | None = None) -> list[Boxes]:
        """The boxes that a detector finds on each slice; none on slices that show nothing.

        Raises:
            ValueError: the method finds no boxes.
        """
        detect = getattr(self.segmenter, "detect", None)
        if detect is None:
            raise ValueError("This model finds no boxes. Take the model 'detector'.")
        found: list[Boxes] = []
        for k in range(picture.shape[2]):
            nothing = is_blank(picture, k)
            none = Boxes(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), torch.zeros(0))
            found.append(none if nothing else self.queue.run(lambda k=k: detect(self.embedding(picture, [k]))[0]))  # type: ignore[misc]
            if progress:
                progress(k + 1, picture.shape[2])
        return found

    def uncertainty(self, picture: Picture, prompt: Prompt) -> Masks:
        """How unsure the method is on the slices that the user pointed at.

        Returns:
            (H, W) uint8 by slice: per cent of 0.25, the largest variance that a probability can have.

        Raises:
            ValueError: the method gives no uncertainty.
        """
        prompt = self._understood(prompt)
        prompts = {k: p for k in prompt.slices() if (p := prompt.on_slice(k)) is not None}
        return self._predict(picture, prompts, read=_per_cent)

    def embedding(self, picture: Picture, ks: Sequence[int]) -> Embedding:
        """Embeddings of slices, from the cache where they are; runs on the device's turn."""
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
        """The prompt as the method takes it: with clicks in place of scribbles where it reads none."""
        return prompt if self.segmenter.takes_scribbles else strokes_to_clicks(prompt)

    def _walk(self, picture: Picture, prompt: Prompt, progress: Progress | None, refine: Refinement | None) -> Masks:
        """Masks (H, W) by slice of a method that reads neighbouring slices."""
        depth, done, quality = picture.shape[2], 0, 1.0

        def read(logits: Logits) -> Tensor:
            nonlocal quality
            quality = 1.0 if logits.quality is None else float(logits.quality[0, 0])
            return logits.masks > 0

        def predict(k: int, said: SlicePrompt) -> tuple[np.ndarray, float]:
            nonlocal done, quality
            done, quality = done + 1, 1.0
            if progress:
                progress(min(done, depth), depth)
            if refine:
                return self._segment(picture, {k: said}, None, refine)[k], quality
            return self._predict(picture, {k: said}, None, read)[k], quality

        steps = np.linalg.norm(picture.affine[:3, :3], axis=0)
        thickness = float(steps[2] / max(np.sqrt(steps[0] * steps[1]), 1e-6)) or 1.0
        clean = not self.loose_parts
        return NeighbourWalk(prompt, depth, picture.slice, predict, thickness, clean=clean).run()

    def _remember(
        self, picture: Picture, prompts: Sequence[Prompt], progress: Progress | None, refine: Refinement | None
    ) -> list[Masks]:
        """Masks (H, W) by slice of objects that the method's own memory carries through the volume."""
        size, total = (picture.shape[1], picture.shape[0]), picture.shape[2] * len(prompts)
        found: list[Masks] = [{} for _ in prompts]
        stacks: dict[int, StackPrompt] = {}
        for n, said in enumerate(map(StackPrompt.of, prompts)):
            found[n] = {k: np.zeros(size, bool) for k in said.shown if is_blank(picture, k)}
            shown = {k: p for k, p in said.shown.items() if k not in found[n]}
            if refine:
                masks = self._segment(picture, shown, None, refine)
                shown = {k: SlicePrompt(mask=mask) for k, mask in masks.items() if mask.any()}
            # a mask about which nothing else was said is kept as it is
            found[n] |= {k: p.mask for k, p in shown.items() if p.mask is not None and not _is_pointed(p)}
            if shown:
                stacks[n] = StackPrompt(shown, said.excluded)
        if not stacks:
            return found
        objects = [*stacks]
        steps = self.segmenter.segment_stack(
            lambda k: self.embedding(picture, [k]), picture.shape[2], [*stacks.values()], size
        )

        def advance() -> tuple[int, int, np.ndarray] | None:
            step = next(steps, None)
            return None if step is None else (objects[step[0]], step[1], step[2].sigmoid().cpu().numpy())

        for done, (n, k, probability) in enumerate(iter(lambda: self.queue.run(advance), None), start=1):
            mask = (probability > 0.5) & (not is_blank(picture, k))
            if refine and mask.any() and k not in found[n]:
                mask = self._refined(picture, k, probability, box_around(mask, 0), refine)
            found[n].setdefault(k, mask)
            if progress:
                progress(min(done, total), total)
        return found

    def _segment(
        self,
        picture: Picture,
        prompts: Mapping[int, SlicePrompt],
        progress: Progress | None,
        refine: Refinement | None,
    ) -> Masks:
        """Masks (H, W) of slices, refined if wanted."""
        if refine is None:
            return self._predict(picture, prompts, progress)
        found = self._predict(picture, prompts, progress, _probability)
        return {k: self._refined(picture, k, found[k], prompts[k], refine) for k in found}

    def _refined(
        self, picture: Picture, k: int, probability: np.ndarray, prompt: SlicePrompt, refine: Refinement
    ) -> np.ndarray:
        def again(other: SlicePrompt) -> np.ndarray:
            return self._predict(picture, {k: other}, read=_probability)[k]

        return refine(Rough(picture.slice(k), probability, prompt, again))

    def _predict(
        self,
        picture: Picture,
        prompts: Mapping[int, SlicePrompt],
        progress: Progress | None = None,
        read: Callable[[Logits], Tensor] = lambda logits: logits.masks > 0,
    ) -> Masks:
        """Masks (H, W) of slices, a batch at a time so that other users get their turn in between."""
        blank = [k for k in prompts if is_blank(picture, k)]
        masks: Masks = {k: np.zeros((picture.shape[1], picture.shape[0]), bool) for k in blank}
        ks = [k for k in prompts if k not in masks]
        size = picture.shape[1], picture.shape[0]
        for start in range(0, len(ks), self.batch):
            chunk = ks[start : start + self.batch]

            @torch.inference_mode()
            def decode(chunk: Sequence[int] = chunk) -> np.ndarray:
                logits = self.segmenter.decode(self.embedding(picture, chunk), [[prompts[k]] for k in chunk], size)
                return read(logits)[:, 0].cpu().numpy()

            masks.update(zip(chunk, self.queue.run(decode), strict=True))
            if progress:
                progress(len(masks), len(prompts))
        return masks


def _is_thick(prompt: Prompt) -> bool:
    return prompt.box is not None and not prompt.box.is_flat


def _is_pointed(prompt: SlicePrompt) -> bool:
    return prompt.box is not None or len(prompt.labels) > 0


def is_blank(picture: Picture, k: int) -> bool:
    """Whether a slice shows nothing: all of its pixels are alike, as where a file holds no numbers."""
    image = picture.array[:, :, k]
    return bool(image.min() == image.max())


def _probability(logits: Logits) -> Tensor:
    return logits.masks.float().sigmoid()


def _per_cent(logits: Logits) -> Tensor:
    if logits.uncertainty is None:
        raise ValueError("This model gives no map of uncertainty. Take the output 'mask', or another model.")
    return (logits.uncertainty.sqrt() * 200).round().clamp(0, 100).to(torch.uint8)


def _with_clicks(carried: SlicePrompt, prompt: Prompt, k: int, with_mask: bool) -> SlicePrompt:
    """A propagated box, and the mask where the method wants it, with what the user excluded on that slice."""
    mask, scribbles = carried.mask if with_mask else None, prompt.scribbles.get(k)
    away = np.array([(i, j) for i, j, kk in prompt.background if kk == k], np.float32).reshape(-1, 2)
    return SlicePrompt(carried.box, away, np.zeros(len(away), np.int64), mask, scribbles)
