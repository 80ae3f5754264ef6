"""From prompted slices to a volume for methods that read the neighbouring slice: grow, stop, correct.

Each slice is segmented with its neighbour's image and mask as prompt, and with the user's clicks and strokes on it.
Corrections change the slices around them only, as far as the change can be followed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import ndimage

from segmed.imaging.masks import slice_box
from segmed.imaging.prompts import Neighbour, Prompt, SlicePrompt, has_strokes
from segmed.methods.near_clicks import near_clicks
from segmed.sam.propagate import PropagationRule, histogram, likeness

Masks = dict[int, np.ndarray]
Predict = Callable[[int, SlicePrompt], tuple[np.ndarray, float]]

NEIGHBOUR_RULE = PropagationRule(margin=0, max_growth=1.6, min_shrink=0.2, min_overlap=0.6, min_likeness=0.4)
_ELONGATION = 0.5  # depth in the changed region per distance, both in px
_TELLING = 60  # px: histograms of fewer are mostly chance
_GAP = 2  # slices without the object that a box over several slices is carried across
_BEYOND = 0.04  # of a box's sides by which an object may stick out


@dataclass(frozen=True)
class NeighbourWalk:
    """One object in one volume.

    Attributes:
        prompt: what the user said.
        depth: number of slices.
        image: the 8-bit image (H, W) or (H, W, 3) of slice k.
        predict: the mask (H, W) of slice k for a prompt, and how good the method takes it to be, in [0, 1].
        thickness: distance of neighbouring slices in px of a slice.
        rule: when a slice still shows the object.
        clean: whether parts that are not connected with the object are left out.
    """

    prompt: Prompt
    depth: int
    image: Callable[[int], np.ndarray]
    predict: Predict
    thickness: float = 1.0
    rule: PropagationRule = NEIGHBOUR_RULE
    clean: bool = True

    def run(self) -> Masks:
        """Masks (H, W) of all slices that show the object."""
        prompt = self.prompt
        if prompt.mask is not None and self._said_slices():
            return self._corrected(prompt.mask)
        if prompt.box is not None and not prompt.box.is_flat:
            return self._within_box()
        if prompt.mask is not None:
            ks = [int(k) for k in np.flatnonzero(prompt.mask.any(axis=(0, 1)))]
            anchors = {k: self._alone(k) for k in ks}
            return self._grow(anchors, ends=(0, self.depth - 1))
        return self._from_slices()

    def _said_slices(self) -> list[int]:
        """Slices with clicks or strokes."""
        clicks = {k for _, _, k in (*self.prompt.foreground, *self.prompt.background)}
        return sorted(clicks | {k for k, s in self.prompt.scribbles.items() if has_strokes(s) or has_strokes(s, -1)})

    def _from_slices(self) -> Masks:
        """From the slice about which most was said; other slices are reached with their clicks, or begin anew."""
        pointed = self.prompt.slices()
        first = max(pointed, key=lambda k: (self._weight(k), -pointed.index(k)))
        anchors = {first: self._alone(first)}
        if not anchors[first].any():
            return {}
        found = self._grow(anchors, ends=(0, self.depth - 1))
        others = [k for k in pointed if k != first]
        if not others:
            return found
        anchors |= {k: found[k] if k in found else self._alone(k) for k in others}
        return self._grow({k: m for k, m in anchors.items() if m.any()}, (0, self.depth - 1))

    def _weight(self, k: int) -> int:
        boxed = self.prompt.box is not None and self.prompt.box.k[0] <= k <= self.prompt.box.k[1]
        strokes = has_strokes(self.prompt.scribbles.get(k))
        return 1000 * boxed + 100 * strokes + sum(kk == k for _, _, kk in self.prompt.foreground)

    def _within_box(self) -> Masks:
        """A box over several slices says where the object begins and ends and how wide it gets at most.

        The object's widest slice fills the box best; from there it is carried to both ends of the box. As a mask also
        fills a box by what does not belong to the object, it counts by its predicted quality.
        """
        box = self.prompt.box
        assert box is not None
        low, high = box.k
        said = [k for k in self.prompt.slices() if low <= k <= high]
        tried = sorted({round(low + share * (high - low)) for share in (0.25, 0.4, 0.5, 0.6, 0.75)} | set(said))
        found = {k: self._judged(k, loose=True) for k in tried}
        masks = {k: mask for k, (mask, _) in found.items()}
        best = max(tried, key=lambda k: self._filled(masks[k]) * found[k][1])
        anchors = {best: masks[best]} | {k: masks[k] for k in said if self._weight(k) > 1000}
        anchors = {k: m for k, m in anchors.items() if m.any()}
        if not anchors:
            return {}
        return self._grow(anchors, ends=(low, high), stop=False)

    def _filled(self, mask: np.ndarray) -> float:
        """How much of the user's box the box around a mask covers."""
        box = self.prompt.box
        if box is None or not mask.any():
            return 0.0
        x0, y0, x1, y1 = slice_box(mask)
        return (x1 - x0 + 1) * (y1 - y0 + 1) / ((box.i[1] - box.i[0] + 1) * (box.j[1] - box.j[0] + 1))

    def _grow(self, anchors: Masks, ends: tuple[int, int], stop: bool = True) -> Masks:
        """Carry masks to their neighbours both ways; slices between two anchors go with the nearer one.

        Args:
            anchors: masks of slices that are kept as they are.
            ends: first and last slice.
            stop: whether to end where the object ends; without it gaps of two slices are crossed.
        """
        found = {k: m for k, m in anchors.items() if m.any()}
        ordered = sorted(found)
        for n, anchor in enumerate(ordered):
            below = (ordered[n - 1] + anchor) // 2 if n else ends[0] - 1
            above = (anchor + ordered[n + 1]) // 2 if n + 1 < len(ordered) else ends[1]
            for ks in (range(anchor + 1, above + 1), range(anchor - 1, below, -1)):
                found |= self._walk(anchor, found[anchor], ks, stop)
        return found

    def _walk(self, start: int, mask: np.ndarray, ks: Iterable[int], stop: bool) -> Masks:
        """Slices `ks`, one after the other, from the mask of slice `start`, as far as the object goes."""
        reference = histogram(self.image(start), mask)
        found: Masks = {}
        before, at, missed = mask, start, 0
        for k in ks:
            here = self._carried(k, at, before)
            holds = self.rule.holds(here, before) and self._is_alike(k, here, reference)
            if not (holds if stop else here.sum() >= self.rule.min_area):
                missed += 1
                if stop or missed > _GAP:
                    break
                continue
            found[k] = before = here
            at, missed = k, 0
        return found

    def _is_alike(self, k: int, mask: np.ndarray, reference: np.ndarray) -> bool:
        """Whether grey values in a mask are those of the first one; few pixels say little about that."""
        wanted = self.rule.min_likeness * min(1.0, float(mask.sum()) / _TELLING)
        return likeness(self.image(k), mask, reference) >= wanted

    def _carried(self, k: int, at: int, mask: np.ndarray) -> np.ndarray:
        """The object on slice k by its mask on slice `at`."""
        prompt = SlicePrompt(neighbour=Neighbour(mask, self.image(at)), **self._bounds(), **self._said(k))
        return self._cleaned(k, self._limited(self.predict(k, prompt)[0]))

    def _bounds(self) -> dict[str, Any]:
        """A box over several slices, as arguments of a `SlicePrompt`: it bounds the object on each of them."""
        box = self.prompt.box
        if box is None or box.is_flat:
            return {}
        (i0, i1), (j0, j1) = box.i, box.j
        return {"box": (float(i0), float(j0), float(i1), float(j1)), "loose": True}

    def _said(self, k: int) -> dict[str, Any]:
        """Clicks and strokes on slice k, as arguments of a `SlicePrompt`."""
        near = [(p, 1) for p in self.prompt.foreground if p[2] == k]
        near += [(p, 0) for p in self.prompt.background if p[2] == k]
        return {
            "points": np.array([p[:2] for p, _ in near], np.float32).reshape(-1, 2),
            "labels": np.array([label for _, label in near], np.int64),
            "scribbles": self.prompt.scribbles.get(k),
        }

    def _alone(self, k: int) -> np.ndarray:
        """Slice k by what the user said about it."""
        return self._judged(k)[0]

    def _judged(self, k: int, loose: bool = False) -> tuple[np.ndarray, float]:
        """The same with the predicted quality."""
        prompt = self.prompt.on_slice(k)
        assert prompt is not None
        mask, quality = self.predict(k, replace(prompt, loose=loose))
        return self._cleaned(k, self._limited(mask)), quality

    def _limited(self, mask: np.ndarray) -> np.ndarray:
        """Without what lies beyond a box over several slices."""
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
        """The largest connected part and those with a click or stroke on the object."""
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
        """The former masks with corrections where something was said, and around it as far as the change goes on."""
        result = {int(k): old[:, :, k].T.copy() for k in np.flatnonzero(old.any(axis=(0, 1)))}
        said = [
            k
            for k in self._said_slices()
            if (prompt := self.prompt.on_slice(k)) is not None and not prompt.is_satisfied
        ]
        fresh = {k: self._correct_slice(k, result) for k in said}
        for n, k in enumerate(said):
            before = result.get(k, np.zeros_like(fresh[k]))
            above = said[n + 1] if n + 1 < len(said) else self.depth
            below = said[n - 1] if n else -1
            for ks in (range(k + 1, above), range(k - 1, below, -1)):
                result |= self._follow(k, before, fresh[k], ks, result)
        result |= fresh
        return {k: m for k, m in result.items() if m.any()}

    def _correct_slice(self, k: int, result: Masks) -> np.ndarray:
        """Slice k by its former mask, or the nearest one's, and what was said about it."""
        if k in result:
            prompt = SlicePrompt(mask=result[k], **self._said(k))
            return self._cleaned(k, self._limited(near_clicks(result[k], self.predict(k, prompt)[0], prompt)))
        if result:
            near = min(result, key=lambda other: abs(other - k))
            reach = ndimage.binary_dilation(result[near], iterations=2 * abs(near - k))
            return self._cleaned(k, self._carried(k, near, result[near]) & reach)
        return self._alone(k)

    def _follow(self, start: int, old: np.ndarray, new: np.ndarray, ks: range, result: Masks) -> Masks:
        """Slices `ks` with the change from `old` to `new` on slice `start` carried on until it fades.

        An error is taken to be at most twice as thick as it is wide: n slices away only those pixels change that lie
        deeper than half of that distance in the changed region. Where the object was not known at all, it grows by the
        rule for new slices.
        """
        changed = old ^ new
        if changed.sum() < self.rule.min_area or not new.any():
            return {}
        depth = ndimage.distance_transform_edt(np.pad(ndimage.binary_dilation(changed), 1))[1:-1, 1:-1]
        # a click where nothing was known yet lies in the middle of what is missed
        farthest = min((abs(start - k) for k in result), default=self.depth)
        found: Masks = {}
        before, at = new, start
        for k in ks:
            if k in result:
                zone = depth > _ELONGATION * abs(k - start) * self.thickness
                if not zone.any():
                    break
                here = self._cleaned(k, np.where(zone, self._carried(k, at, before), result[k]))
                if (here == result[k]).all():
                    break
            else:
                if abs(k - start) > farthest or (old.any() and (old & new).sum() > 0.5 * new.sum()):
                    break  # too far, or the object was known on the slice before and ended here
                here = self._carried(k, at, before) & ndimage.binary_dilation(before, iterations=2)
                if old.any():
                    here &= depth > _ELONGATION * abs(k - start) * self.thickness
                if not self.rule.holds(here, before):
                    break
            found[k] = before = here
            at = k
        return found
