"""Restriction of corrections to the neighbourhood of clicks."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from segmed.imaging.prompts import SlicePrompt

_WIDE, _LONG = 2.5, 6.0  # width and length of an error, in distances of its click from the edge
# A background click at this share of the mask's depth means a spot, such as a vessel; in the middle, the
# whole mask.
_DEEP = (0.4, 0.9)
_SPOT = 0.5  # radius of such a spot, in distances of its click from the edge


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
