"""Propagation through a volume, and corrections, for methods that read the neighbouring slice.

Each slice is segmented with its neighbour's image and mask as prompt, together with the user's clicks and
strokes on it. Corrections change only nearby slices, as far as the change can be followed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import ndimage

from segmed.imaging.labels.masks import slice_box
from segmed.imaging.prompts import Neighbour, Prompt, SlicePrompt, has_strokes
from segmed.inference.corrections import corrected
from segmed.inference.cross_planes import Course
from segmed.inference.propagation import PropagationRule, histogram, likeness

Masks = dict[int, np.ndarray]
Predict = Callable[[int, SlicePrompt], tuple[np.ndarray, float]]

NEIGHBOUR_RULE = PropagationRule(margin=0, max_growth=1.6, min_shrink=0.2, min_overlap=0.6, min_likeness=0.4)
_RELIABLE_AREA = 60  # px; histograms of fewer pixels are mostly noise
_GAP = 2  # consecutive slices without the object that propagation within a box crosses
_BEYOND = 0.04  # share of a box's sides by which an object may exceed the box
_LONG = 0.35  # length of a course, in widths of the object, that moves its end on
_AROUND = 1  # px by which an object may exceed the box that the planes across give


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
        course: Function that tells from slice k and its mask (H, W) how the object goes on, or None.
    """

    prompt: Prompt
    depth: int
    image: Callable[[int], np.ndarray]
    predict: Predict
    thickness: float = 1.0
    rule: PropagationRule = NEIGHBOUR_RULE
    clean: bool = True
    found: Callable[[int, np.ndarray], None] = lambda k, mask: None
    course: Callable[[int, np.ndarray], Course | None] = lambda k, mask: None

    def run(self) -> Masks:
        """Masks (H, W) of all slices that show the object."""
        prompt = self.prompt
        previous = None if prompt.is_outline else prompt.mask
        if previous is not None and self.marked_slices():
            return corrected(self, previous)
        if prompt.box is not None and not prompt.box.is_flat:
            return self._within_box()
        if previous is not None:
            ks = [int(k) for k in np.flatnonzero(previous.any(axis=(0, 1)))]
            anchors = {k: self.from_prompt(k) for k in ks}
            return self._grow(anchors, ends=(0, self.depth - 1))
        return self._from_slices()

    def marked_slices(self) -> list[int]:
        """Slices with clicks or strokes."""
        clicks = {k for _, _, k in (*self.prompt.foreground, *self.prompt.background)}
        strokes = {k for k, s in self.prompt.scribbles.items() if has_strokes(s) or has_strokes(s, -1)}
        return sorted(clicks | strokes)

    def _from_slices(self) -> Masks:
        """Start from the most strongly prompted slice, and reach the others from it or start them again."""
        pointed = self.prompt.slices()
        first = max(pointed, key=lambda k: (self._weight(k), -pointed.index(k)))
        anchors = {first: self.from_prompt(first)}
        if not anchors[first].any():
            return {}
        masks = self._grow(anchors, ends=(0, self.depth - 1))
        others = [k for k in pointed if k != first]
        if not others:
            return masks
        anchors |= {k: masks[k] if k in masks else self.from_prompt(k) for k in others}
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

    def _walk(self, start: int, mask: np.ndarray, ks: range, stop: bool) -> Masks:
        """Propagate the mask of slice `start` through slices `ks` in their order, until the object ends.

        Where the object ends is asked of the planes across as well: at the start, and again halfway to each
        answer, because objects bend out of a plane.
        """
        reference = histogram(self.image(start), mask)
        masks: Masks = {}
        before, at, missed = mask, start, 0
        course, end, again = self._asked(start, mask, ks, None) if stop else (None, None, None)
        for k in ks:
            if at == again:
                course, end, again = self._asked(at, before, ks, end)
            if end is not None and (k - end) * ks.step > 0:
                break
            current = self.propagated(k, at, before, course.box_on(k) if course else None)
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

    def _asked(
        self, at: int, mask: np.ndarray, ks: range, known: int | None
    ) -> tuple[Course | None, int | None, int | None]:
        """The course of the object from slice `at`, its end, and the slice on which to ask again.

        As a chord always has some thickness in the planes across, an end that was known is moved on only by
        a course that is long for the width of the object.
        """
        course = self.course(at, mask) if len(ks) else None
        if course is None:
            return None, known, None
        end = course.end(ks.step)
        x0, y0, x1, y1 = course.box
        width = min(x1 - x0, y1 - y0) + 1
        if known is not None and (end - known) * ks.step > 0:
            end = end if abs(end - at) * self.thickness > _LONG * width else known
        halfway = (abs(end - at) + 1) // 2
        return course, end, at + ks.step * halfway if halfway > 1 else None

    def _is_alike(self, k: int, mask: np.ndarray, reference: np.ndarray) -> bool:
        """Whether the grey values in a mask resemble those of the first one, less strictly for few pixels."""
        wanted = self.rule.min_likeness * min(1.0, float(mask.sum()) / _RELIABLE_AREA)
        return likeness(self.image(k), mask, reference) >= wanted

    def propagated(
        self, k: int, at: int, mask: np.ndarray, box: tuple[float, float, float, float] | None = None
    ) -> np.ndarray:
        """The mask of the object on slice k, predicted from its mask on slice `at`, in its box if known."""
        near = Neighbour(mask, self.image(at))
        marks = self.marks_on(k)
        if box is None:
            prompt = SlicePrompt(neighbour=near, **self._bounds(mask), **marks)
            return self.cleaned(k, self.clipped_to_box(self.predict(k, prompt)[0]))
        found = self.predict(k, SlicePrompt(neighbour=near, box=box, loose=True, **marks))[0]
        if not len(marks["labels"]) and not has_strokes(marks["scribbles"]):
            found = found & _inside(box, found.shape)
        return self.cleaned(k, self.clipped_to_box(found))

    def _bounds(self, near: np.ndarray) -> dict[str, Any]:
        """A box that bounds the object on the next slice, as arguments of a `SlicePrompt`.

        A box is drawn where the object is large, so that the object hardly becomes wider than its mask `near`
        on the slice before. A click may lie anywhere and bounds nothing.
        """
        return {} if self.prompt.box is None else {"box": slice_box(near), "loose": True}

    def marks_on(self, k: int) -> dict[str, Any]:
        """Clicks and strokes on slice k, as arguments of a `SlicePrompt`."""
        near = [(p, 1) for p in self.prompt.foreground if p[2] == k]
        near += [(p, 0) for p in self.prompt.background if p[2] == k]
        return {
            "points": np.array([p[:2] for p, _ in near], np.float32).reshape(-1, 2),
            "labels": np.array([label for _, label in near], np.int64),
            "scribbles": self.prompt.scribbles.get(k),
        }

    def from_prompt(self, k: int) -> np.ndarray:
        """The mask of slice k, predicted from the user's prompt alone."""
        return self._with_quality(k)[0]

    def _with_quality(self, k: int, loose: bool = False) -> tuple[np.ndarray, float]:
        """The mask of slice k, predicted from the user's prompt alone, and its predicted quality."""
        prompt = self.prompt.on_slice(k)
        assert prompt is not None
        mask, quality = self.predict(k, replace(prompt, loose=loose, quick=loose))
        return self.cleaned(k, self.clipped_to_box(mask)), quality

    def clipped_to_box(self, mask: np.ndarray) -> np.ndarray:
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

    def cleaned(self, k: int, mask: np.ndarray) -> np.ndarray:
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


def _inside(box: tuple[float, float, float, float], size: tuple[int, int]) -> np.ndarray:
    """Mask (H, W) of the pixels in a box and next to it."""
    x0, y0, x1, y1 = (round(side) for side in box)
    mask = np.zeros(size, bool)
    mask[max(0, y0 - _AROUND) : y1 + _AROUND + 1, max(0, x0 - _AROUND) : x1 + _AROUND + 1] = True
    return mask
