"""Corrections of an object in a volume: on the slices with new clicks, and on those around them.

A click lies near the middle of an error. How far an error extends, on its slice and through its neighbours,
is therefore estimated from the distance of the click or of the change from the edge.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from segmed.imaging.labels.masks import slice_box
from segmed.imaging.prompts import SlicePrompt

if TYPE_CHECKING:
    from segmed.inference.neighbour_walk import NeighbourWalk

Masks = dict[int, np.ndarray]

_WIDE, _LONG = 2.5, 6.0  # width and length of an error, in distances of its click from the edge
# A background click at this share of the mask's depth means a spot, such as a vessel; in the middle, the
# whole mask.
_DEEP = (0.4, 0.9)
_ELONGATION = 0.5  # depth in the changed region per distance between slices, both in px
_SPOT = 0.5  # radius of such a spot, in distances of its click from the edge
_STEP, _WIDER = 2, 1  # px by which an object may grow from slice to slice, and by which its box does
_COVERED = 0.5  # share of the user's marks on a slice that a mask must cover
_BESIDE = 0.5  # how far an object may extend beyond its former box, in the sides of that box


def near_clicks(old: np.ndarray, new: np.ndarray, prompt: SlicePrompt) -> np.ndarray:
    """Limit the changes of a corrected mask to the neighbourhood of the clicks.

    A click lies near the middle of an error, which lies along the edge of the former mask. An error therefore
    extends about twice as far from that edge as its click, and may be several times as long. With strokes,
    which show the extent of the error, the new mask is not limited.

    Args:
        old: The former mask (H, W), boolean and not empty.
        new: The mask (H, W) from a method.
        prompt: The prompt with the clicks; clicks that `old` agrees with change nothing.

    Returns:
        The mask (H, W), `new` near the clicks and `old` elsewhere.
    """
    # With e(x) the distance of pixel x from the edge of `old`, r = e(click) and t the distance from the
    # click, pixels may change to the label of the click where e <= 2.5 r + 1 and t <= 6 r + 3.
    if prompt.scribbles is not None:
        return new
    inside = ndimage.distance_transform_edt(np.pad(old, 1))[1:-1, 1:-1]
    outside = ndimage.distance_transform_edt(~old)
    from_edge = np.where(old, inside, outside)
    allowed = np.zeros_like(old)
    rows, columns = np.ogrid[: old.shape[0], : old.shape[1]]
    for (x, y), label in zip(prompt.points.astype(int), prompt.labels, strict=True):
        if old[y, x] == bool(label):
            continue
        reach = float(from_edge[y, x])
        is_spot = label == 0 and _DEEP[0] < reach / inside.max() < _DEEP[1]
        farthest = _SPOT * reach if is_spot else _LONG * reach + 3
        along = np.hypot(rows - y, columns - x) <= farthest
        allowed |= along & (from_edge <= _WIDE * reach + 1) & (old != bool(label))
    return np.where(allowed, new, old)


def corrected(walk: NeighbourWalk, old: np.ndarray) -> Masks:
    """Correct the former masks on slices with new marks, and on nearby slices as far as needed.

    Args:
        walk: The propagation, whose prompt contains the marks.
        old: The former mask (I, J, K), boolean.

    Returns:
        Masks (H, W) by slice index.
    """
    result = {int(k): old[:, :, k].T.copy() for k in np.flatnonzero(old.any(axis=(0, 1)))}
    every = walk.marked_slices()
    marked = [k for k in every if (prompt := walk.prompt.on_slice(k)) is not None and not prompt.is_satisfied]
    shown = {k for _, _, k in walk.prompt.foreground} | (
        set() if walk.prompt.box is None else {walk.prompt.box.middle_slice}
    )
    fixed = {}
    for k in marked:
        fixed[k] = _correct_slice(walk, k, result)
        walk.found(k, fixed[k])
    for n, k in enumerate(marked):
        before = result.get(k, np.zeros_like(fixed[k]))
        # A click on a slice without a mask lies in the middle of the missing part; on a slice with one, the
        # object's ends are known.
        farthest = min((abs(k - other) for other in result), default=walk.depth)
        above = marked[n + 1] if n + 1 < len(marked) else walk.depth
        below = marked[n - 1] if n else -1
        for ks in (range(k + 1, above), range(k - 1, below, -1)):
            if fixed[k].any():
                result |= _follow(walk, k, before, fixed[k], ks, result, farthest)
            else:
                ahead = [abs(s - k) for s in shown if (s - k) * ks.step > 0]
                beyond = bool(shown) and not ahead
                result |= _cut_off(walk, k, before, ks, result, 0 if beyond else min(ahead, default=None))
    result |= fixed
    return {k: m for k, m in result.items() if m.any()}


def _correct_slice(walk: NeighbourWalk, k: int, result: Masks) -> np.ndarray:
    """The mask of slice k from its former mask, or the nearest one, and the user's marks on it."""
    if k in result:
        prompt = SlicePrompt(mask=result[k], **walk.marks_on(k))
        found = near_clicks(result[k], walk.predict(k, prompt)[0], prompt)
        return walk.cleaned(k, walk.clipped_to_box(found))
    if not result:
        return walk.from_prompt(k)
    near = min(result, key=lambda other: abs(other - k))
    reach = ndimage.binary_dilation(result[near], iterations=2 * abs(near - k))
    found = walk.cleaned(k, walk.propagated(k, near, result[near]) & reach)
    said = _said_on(walk, k, found.shape)
    clicked = all(found[y, x] for x, y, at in walk.prompt.foreground if at == k)
    if clicked and (not said.any() or found[said].mean() > _COVERED):
        return found
    # The object has moved on, or begins anew far from its nearest mask: only the marks tell how it looks.
    return walk.from_prompt(k) & _around(np.any([*result.values(), said], 0))


def _said_on(walk: NeighbourWalk, k: int, size: tuple[int, ...]) -> np.ndarray:
    """Mask (H, W) of the pixels of slice k that clicks or strokes of the user say lie on the object."""
    strokes = walk.prompt.scribbles.get(k)
    said = np.zeros(size, bool) if strokes is None else strokes == 1
    for x, y, at in walk.prompt.foreground:
        said[y, x] |= at == k
    return said


def _around(mask: np.ndarray) -> np.ndarray:
    """Mask (H, W) of the box around a mask and its surroundings."""
    x0, y0, x1, y1 = (int(side) for side in slice_box(mask))
    x, y = (round(_BESIDE * (high - low + 1)) for low, high in ((x0, x1), (y0, y1)))
    inside = np.zeros_like(mask)
    inside[max(0, y0 - y) : y1 + y + 1, max(0, x0 - x) : x1 + x + 1] = True
    return inside


def _cut_off(
    walk: NeighbourWalk, start: int, old: np.ndarray, ks: range, result: Masks, shown: int | None
) -> Masks:
    """Empty the slices next to a slice that a background click has emptied.

    The object ends before that slice. On the side away from everything that the user has shown of it, all
    that is connected through the slice is removed. On the other side, the error reaches as far as it is wide,
    because the click lies near its middle, but at most halfway to what the user has shown.

    Args:
        walk: The propagation.
        start: The emptied slice.
        old: Its former mask (H, W).
        ks: The slices beside it, in their order.
        result: The masks so far.
        shown: Distance in slices of the nearest slice among `ks` on which the user has shown the object, 0 if
            there is none, or None if nothing was shown at all.
    """
    reach = float(ndimage.distance_transform_edt(np.pad(old, 1)).max()) / walk.thickness
    if shown is not None:
        reach = min(2 * reach, shown / 2) if shown else float("inf")
    masks: Masks = {}
    last = old
    for k in ks:
        mask = result.get(k)
        if mask is None or not (mask & last).any() or abs(k - start) >= reach:
            break
        masks[k], last = np.zeros_like(mask), mask
        walk.found(k, masks[k])
    return masks


def _accepted(walk: NeighbourWalk) -> set[int]:
    """Slices whose mask the user has seen and left as it is: that of a flat box, and those with marks."""
    box = walk.prompt.box
    drawn = {box.k[0]} if box is not None and box.is_flat else set()
    return drawn | set(walk.marked_slices())


def _follow(
    walk: NeighbourWalk,
    start: int,
    old: np.ndarray,
    new: np.ndarray,
    ks: range,
    result: Masks,
    farthest: int,
) -> Masks:
    """Propagate the change from `old` to `new` on slice `start` through `ks` until it fades.

    An error is assumed to be at most twice as thick as wide: n slices away only those pixels change that
    lie deeper than half of that distance in the changed region. On slices without a former mask, at most
    `farthest` slices away, the object grows by the rule for new slices.
    """
    changed = old ^ new
    if changed.sum() < walk.rule.min_area or not new.any():
        return {}
    depth = ndimage.distance_transform_edt(np.pad(ndimage.binary_dilation(changed), 1))[1:-1, 1:-1]
    accepted, is_gap = _accepted(walk), any(k in result for k in ks)
    masks: Masks = {}
    before, at = new, start
    for k in ks:
        if k in accepted and k in result:
            break
        if k in result:
            zone = depth > _ELONGATION * abs(k - start) * walk.thickness
            if not zone.any():
                break
            current = walk.cleaned(k, np.where(zone, walk.propagated(k, at, before), result[k]))
            if (current == result[k]).all():
                break
        else:
            if abs(k - start) > farthest:
                break
            x0, y0, x1, y1 = slice_box(before)
            wider = (x0 - _WIDER, y0 - _WIDER, x1 + _WIDER, y1 + _WIDER)
            near = ndimage.binary_dilation(before, iterations=_STEP)
            current = walk.propagated(k, at, before, wider) & near
            # Between a click and a former mask, the object goes on even where it becomes thin.
            goes_on = current.any() if is_gap else walk.rule.holds(current, before)
            if not goes_on:
                break
        masks[k] = before = current
        at = k
        walk.found(k, current)
    return masks
