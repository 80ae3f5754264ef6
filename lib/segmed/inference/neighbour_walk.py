"""Propagation through a volume, and corrections, for methods that read the neighbouring slice.

Each slice is segmented with its neighbour's image and mask as prompt, together with the user's clicks and
strokes on it. Corrections change only nearby slices, as far as the change can be followed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import ndimage

from segmed.imaging.labels.masks import slice_box
from segmed.imaging.prompts import Neighbour, Prompt, SlicePrompt, has_strokes
from segmed.inference.near_clicks import near_clicks
from segmed.inference.propagation import PropagationRule, histogram, likeness

Masks = dict[int, np.ndarray]
Predict = Callable[[int, SlicePrompt], tuple[np.ndarray, float]]

NEIGHBOUR_RULE = PropagationRule(margin=0, max_growth=1.6, min_shrink=0.2, min_overlap=0.6, min_likeness=0.4)
_ELONGATION = 0.5  # depth in the changed region per distance between slices, both in px
_RELIABLE_AREA = 60  # px; histograms of fewer pixels are mostly noise
_GAP = 2  # consecutive slices without the object that propagation within a box crosses
_BEYOND = 0.04  # share of a box's sides by which an object may exceed the box


@dataclass(frozen=True)
class NeighbourWalk:
    """The propagation of one object through one volume.

    Attributes:
        prompt: The user's prompt.
        depth: Number of slices.
        image: Function that returns the 8-bit image (H, W) or (H, W, 3) of slice k.
        predict: Function that returns the mask (H, W) of slice k for a prompt, and its predicted IoU in [0,
            1].
        thickness: Distance of neighbouring slices in px of a slice.
        rule: The conditions under which a slice still shows the object.
        clean: Whether parts that are not connected with the object are removed.
        found: Function called with each slice and its mask as soon as it belongs to the result.
    """

    prompt: Prompt
    depth: int
    image: Callable[[int], np.ndarray]
    predict: Predict
    thickness: float = 1.0
    rule: PropagationRule = NEIGHBOUR_RULE
    clean: bool = True
    found: Callable[[int, np.ndarray], None] = lambda k, mask: None

    def run(self) -> Masks:
        """Masks (H, W) of all slices that show the object."""
        prompt = self.prompt
        if prompt.mask is not None and self._marked_slices():
            return self._corrected(prompt.mask)
        if prompt.box is not None and not prompt.box.is_flat:
            return self._within_box()
        if prompt.mask is not None:
            ks = [int(k) for k in np.flatnonzero(prompt.mask.any(axis=(0, 1)))]
            anchors = {k: self._from_prompt(k) for k in ks}
            return self._grow(anchors, ends=(0, self.depth - 1))
        return self._from_slices()

    def _marked_slices(self) -> list[int]:
        """Slices with clicks or strokes."""
        clicks = {k for _, _, k in (*self.prompt.foreground, *self.prompt.background)}
        strokes = {k for k, s in self.prompt.scribbles.items() if has_strokes(s) or has_strokes(s, -1)}
        return sorted(clicks | strokes)

    def _from_slices(self) -> Masks:
        """Start from the most strongly prompted slice, and reach the others from it or start them again."""
        pointed = self.prompt.slices()
        first = max(pointed, key=lambda k: (self._weight(k), -pointed.index(k)))
        anchors = {first: self._from_prompt(first)}
        if not anchors[first].any():
            return {}
        masks = self._grow(anchors, ends=(0, self.depth - 1))
        others = [k for k in pointed if k != first]
        if not others:
            return masks
        anchors |= {k: masks[k] if k in masks else self._from_prompt(k) for k in others}
        return self._grow({k: m for k, m in anchors.items() if m.any()}, (0, self.depth - 1))

    def _weight(self, k: int) -> int:
        """Strength of the prompt on slice k: a box counts more than strokes, and strokes more than clicks."""
        boxed = self.prompt.box is not None and self.prompt.box.k[0] <= k <= self.prompt.box.k[1]
        strokes = has_strokes(self.prompt.scribbles.get(k))
        return 1000 * boxed + 100 * strokes + sum(kk == k for _, _, kk in self.prompt.foreground)

    def _within_box(self) -> Masks:
        """Segment within a box over several slices, which gives the object's ends and its largest extent.

        The mask that covers the box best is propagated to both ends of the box. As a mask may also cover the
        box by pixels that do not belong to the object, its coverage is multiplied by its predicted quality.
        """
        box = self.prompt.box
        assert box is not None
        low, high = box.k
        prompted = [k for k in self.prompt.slices() if low <= k <= high]
        tried = sorted(
            {round(low + share * (high - low)) for share in (0.25, 0.4, 0.5, 0.6, 0.75)} | set(prompted)
        )
        candidates = {k: self._with_quality(k, loose=True) for k in tried}
        masks = {k: mask for k, (mask, _) in candidates.items()}
        best = max(tried, key=lambda k: self._box_coverage(masks[k]) * candidates[k][1])
        anchors = {best: masks[best]} | {k: masks[k] for k in prompted if self._weight(k) > 1000}
        anchors = {k: m for k, m in anchors.items() if m.any()}
        if not anchors:
            return {}
        return self._grow(anchors, ends=(low, high), stop=False)

    def _box_coverage(self, mask: np.ndarray) -> float:
        """Area of the box around a mask as a share of the user's box."""
        box = self.prompt.box
        if box is None or not mask.any():
            return 0.0
        x0, y0, x1, y1 = slice_box(mask)
        return (x1 - x0 + 1) * (y1 - y0 + 1) / ((box.i[1] - box.i[0] + 1) * (box.j[1] - box.j[0] + 1))

    def _grow(self, anchors: Masks, ends: tuple[int, int], stop: bool = True) -> Masks:
        """Propagate masks in both directions; a slice between two anchors is reached from the nearer one.

        Args:
            anchors: Masks of slices, which are not changed.
            ends: First and last slice.
            stop: Whether to stop where the object ends; otherwise gaps of two slices are crossed.
        """
        masks = {k: m for k, m in anchors.items() if m.any()}
        ordered = sorted(masks)
        for anchor in ordered:
            self.found(anchor, masks[anchor])
        for n, anchor in enumerate(ordered):
            below = (ordered[n - 1] + anchor) // 2 if n else ends[0] - 1
            above = (anchor + ordered[n + 1]) // 2 if n + 1 < len(ordered) else ends[1]
            for ks in (range(anchor + 1, above + 1), range(anchor - 1, below, -1)):
                masks |= self._walk(anchor, masks[anchor], ks, stop)
        return masks

    def _walk(self, start: int, mask: np.ndarray, ks: Iterable[int], stop: bool) -> Masks:
        """Propagate the mask of slice `start` through slices `ks` in their order, until the object ends."""
        reference = histogram(self.image(start), mask)
        masks: Masks = {}
        before, at, missed = mask, start, 0
        for k in ks:
            current = self._propagated(k, at, before)
            holds = self.rule.holds(current, before) and self._is_alike(k, current, reference)
            if not (holds if stop else current.sum() >= self.rule.min_area):
                missed += 1
                if stop or missed > _GAP:
                    break
                continue
            masks[k] = before = current
            at, missed = k, 0
            self.found(k, current)
        return masks

    def _is_alike(self, k: int, mask: np.ndarray, reference: np.ndarray) -> bool:
        """Whether the grey values in a mask resemble those of the first one, less strictly for few pixels."""
        wanted = self.rule.min_likeness * min(1.0, float(mask.sum()) / _RELIABLE_AREA)
        return likeness(self.image(k), mask, reference) >= wanted

    def _propagated(self, k: int, at: int, mask: np.ndarray) -> np.ndarray:
        """The mask of the object on slice k, predicted from its mask on slice `at`."""
        near = Neighbour(mask, self.image(at))
        prompt = SlicePrompt(neighbour=near, **self._bounds(mask), **self._marks_on(k))
        return self._cleaned(k, self._clipped_to_box(self.predict(k, prompt)[0]))

    def _bounds(self, near: np.ndarray) -> dict[str, Any]:
        """A box that bounds the object on the next slice, as arguments of a `SlicePrompt`.

        A box is drawn where the object is large, so that the object hardly becomes wider than its mask `near`
        on the slice before. A click may lie anywhere and bounds nothing.
        """
        return {} if self.prompt.box is None else {"box": slice_box(near), "loose": True}

    def _marks_on(self, k: int) -> dict[str, Any]:
        """Clicks and strokes on slice k, as arguments of a `SlicePrompt`."""
        near = [(p, 1) for p in self.prompt.foreground if p[2] == k]
        near += [(p, 0) for p in self.prompt.background if p[2] == k]
        return {
            "points": np.array([p[:2] for p, _ in near], np.float32).reshape(-1, 2),
            "labels": np.array([label for _, label in near], np.int64),
            "scribbles": self.prompt.scribbles.get(k),
        }

    def _from_prompt(self, k: int) -> np.ndarray:
        """The mask of slice k, predicted from the user's prompt alone."""
        return self._with_quality(k)[0]

    def _with_quality(self, k: int, loose: bool = False) -> tuple[np.ndarray, float]:
        """The mask of slice k, predicted from the user's prompt alone, and its predicted quality."""
        prompt = self.prompt.on_slice(k)
        assert prompt is not None
        mask, quality = self.predict(k, replace(prompt, loose=loose))
        return self._cleaned(k, self._clipped_to_box(mask)), quality

    def _clipped_to_box(self, mask: np.ndarray) -> np.ndarray:
        """Remove the pixels of a mask that lie outside of a box over several slices."""
        box = self.prompt.box
        if box is None or box.is_flat:
            return mask
        (i0, i1), (j0, j1) = box.i, box.j
        x, y = round(_BEYOND * (i1 - i0 + 1)), round(_BEYOND * (j1 - j0 + 1))
        kept = np.zeros_like(mask)
        inside = np.s_[max(0, j0 - y) : j1 + y + 1, max(0, i0 - x) : i1 + x + 1]
        kept[inside] = mask[inside]
        return kept

    def _cleaned(self, k: int, mask: np.ndarray) -> np.ndarray:
        """Keep the largest connected part of a mask and those with a foreground click or stroke."""
        if not self.clean or not mask.any():
            return mask
        parts, count = ndimage.label(mask, np.ones((3, 3)))
        if count < 2:
            return mask
        kept = {int(np.bincount(parts.ravel())[1:].argmax()) + 1}
        kept |= {int(parts[j, i]) for i, j, kk in self.prompt.foreground if kk == k}
        strokes = self.prompt.scribbles.get(k)
        if strokes is not None:
            kept |= {int(v) for v in np.unique(parts[strokes == 1])}
        return np.isin(parts, [part for part in kept if part])

    def _corrected(self, old: np.ndarray) -> Masks:
        """Correct the former masks on slices with new marks, and on nearby slices as far as needed."""
        result = {int(k): old[:, :, k].T.copy() for k in np.flatnonzero(old.any(axis=(0, 1)))}
        marked = [
            k
            for k in self._marked_slices()
            if (prompt := self.prompt.on_slice(k)) is not None and not prompt.is_satisfied
        ]
        corrected = {}
        for k in marked:
            corrected[k] = self._correct_slice(k, result)
            self.found(k, corrected[k])
        for n, k in enumerate(marked):
            before = result.get(k, np.zeros_like(corrected[k]))
            above = marked[n + 1] if n + 1 < len(marked) else self.depth
            below = marked[n - 1] if n else -1
            for ks in (range(k + 1, above), range(k - 1, below, -1)):
                result |= self._follow(k, before, corrected[k], ks, result)
        result |= corrected
        return {k: m for k, m in result.items() if m.any()}

    def _correct_slice(self, k: int, result: Masks) -> np.ndarray:
        """The mask of slice k from its former mask, or the nearest one, and the user's marks on it."""
        if k in result:
            prompt = SlicePrompt(mask=result[k], **self._marks_on(k))
            return self._cleaned(
                k, self._clipped_to_box(near_clicks(result[k], self.predict(k, prompt)[0], prompt))
            )
        if result:
            near = min(result, key=lambda other: abs(other - k))
            reach = ndimage.binary_dilation(result[near], iterations=2 * abs(near - k))
            return self._cleaned(k, self._propagated(k, near, result[near]) & reach)
        return self._from_prompt(k)

    def _follow(self, start: int, old: np.ndarray, new: np.ndarray, ks: range, result: Masks) -> Masks:
        """Propagate the change from `old` to `new` on slice `start` through `ks` until it fades.

        An error is assumed to be at most twice as thick as wide: n slices away only those pixels change that
        lie deeper than half of that distance in the changed region. On slices without a former mask the
        object grows by the rule for new slices.
        """
        changed = old ^ new
        if changed.sum() < self.rule.min_area or not new.any():
            return {}
        depth = ndimage.distance_transform_edt(np.pad(ndimage.binary_dilation(changed), 1))[1:-1, 1:-1]
        # A click on a slice without a mask lies in the middle of the missing part.
        farthest = min((abs(start - k) for k in result), default=self.depth)
        masks: Masks = {}
        before, at = new, start
        for k in ks:
            if k in result:
                zone = depth > _ELONGATION * abs(k - start) * self.thickness
                if not zone.any():
                    break
                current = self._cleaned(k, np.where(zone, self._propagated(k, at, before), result[k]))
                if (current == result[k]).all():
                    break
            else:
                if abs(k - start) > farthest or (old.any() and (old & new).sum() > 0.5 * new.sum()):
                    break  # too far, or the object already had a mask on the previous slice and ended here
                current = self._propagated(k, at, before) & ndimage.binary_dilation(before, iterations=2)
                if old.any():
                    current &= depth > _ELONGATION * abs(k - start) * self.thickness
                if not self.rule.holds(current, before):
                    break
            masks[k] = before = current
            at = k
            self.found(k, current)
        return masks
