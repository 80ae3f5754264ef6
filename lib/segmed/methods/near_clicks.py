"""What of a mask clicks may change: a model that is asked again redraws more than was meant."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from segmed.imaging.prompts import SlicePrompt

_WIDE, _LONG = 2.5, 6.0  # of an error, in distances of its click from the edge
_DEEP = (0.4, 0.9)  # of the depth of a mask: clicks there may mean a spot, such as a vessel; in the middle, the whole
_SPOT = 0.5  # radius of such a spot, in distances of its click from the edge


def near_clicks(old: np.ndarray, new: np.ndarray, prompt: SlicePrompt) -> np.ndarray:
    """A corrected mask (H, W) that differs from the former one only where the clicks speak.

    A click lies about in the middle of an error, which lies along the edge of the former mask. So an error reaches
    twice as far from that edge as the click does, and may be several times as long. Strokes show its extent.

    Args:
        old: mask before, not empty.
        new: what a method made of it.
        prompt: with the clicks; those that `old` agrees with change nothing.
    """
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
