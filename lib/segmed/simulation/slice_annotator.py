"""A simulated annotator for real cases: jittered boxes, and clicks on the largest error of a mask.

The protocol is that of SAM (Kirillov et al., 2023): a click goes to the pixel of the largest error that is
farthest from its edges. Only the jitter of boxes is random, with a seed.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from segmed.imaging.prompts import SlicePrompt

Corners = tuple[float, float, float, float]


def jittered(box: Corners, share: float, size: tuple[int, int], generator: np.random.Generator) -> Corners:
    """Move each side of a box at random by up to `share` of the box's width or height, inwards or outwards.

    Args:
        box: The box as x0, y0, x1, y1 in px, ends inclusive.
        share: Largest move, as a share of the side.
        size: Rows and columns (H, W) of the slice, to which the box is clipped.
        generator: A random generator.
    """
    x0, y0, x1, y1 = box
    move = np.round(generator.uniform(-share, share, 4) * np.array([x1 - x0 + 1, y1 - y0 + 1] * 2))
    limit = np.array([size[1] - 1, size[0] - 1] * 2)
    a, b, c, d = np.clip(np.array(box) + move, 0, limit)
    return float(min(a, c)), float(min(b, d)), float(max(a, c)), float(max(b, d))


def deepest(mask: np.ndarray) -> tuple[int, int]:
    """The pixel (x, y) of a boolean mask (H, W), not empty, that is farthest from the edge of the mask."""
    distance = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(int(distance.argmax()), mask.shape)
    return int(x), int(y)


def with_click(prompt: SlicePrompt | None, found: np.ndarray | None, truth: np.ndarray) -> SlicePrompt:
    """Add a click to a prompt.

    Args:
        prompt: The prompt so far, or None.
        found: The predicted mask (H, W), boolean, or None before the first prediction.
        truth: The true mask (H, W), boolean.

    Returns:
        The prompt with a click on the object at first, then on the deepest pixel of the missed or extra
        parts; the same prompt if nothing is wrong.
    """
    missed = truth if found is None else truth & ~found
    extra = np.zeros_like(truth) if found is None else found & ~truth
    if not missed.any() and not extra.any():
        assert prompt is not None
        return prompt
    depths = [ndimage.distance_transform_edt(np.pad(error, 1)).max() for error in (missed, extra)]
    label = int(depths[0] >= depths[1])
    click = deepest(missed if label else extra)
    points = np.array([click], np.float32)
    labels = np.array([label], np.int64)
    if prompt is None:
        return SlicePrompt(points=points, labels=labels)
    return SlicePrompt(
        prompt.box,
        np.concatenate([prompt.points, points]),
        np.concatenate([prompt.labels, labels]),
        prompt.mask,
    )
