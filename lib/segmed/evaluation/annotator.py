"""A simulated annotator for real cases: careless boxes, and clicks where a mask is most wrong.

The protocol is that of SAM (Kirillov et al., 2023): a click goes to the place of the largest error that is farthest
from its edges. Nothing is drawn at random but the jitter of boxes, which has a seed.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from segmed.imaging.prompts import SlicePrompt

Corners = tuple[float, float, float, float]


def jittered(box: Corners, share: float, size: tuple[int, int], generator: np.random.Generator) -> Corners:
    """A box with each side moved by up to `share` of the box's width or height, inwards or outwards.

    Args:
        box: x0, y0, x1, y1 in px, ends inclusive.
        share: largest move.
        size: (H, W) of the slice, which the box does not leave.
        generator: source of randomness.
    """
    x0, y0, x1, y1 = box
    move = np.round(generator.uniform(-share, share, 4) * np.array([x1 - x0 + 1, y1 - y0 + 1] * 2))
    limit = np.array([size[1] - 1, size[0] - 1] * 2)
    a, b, c, d = np.clip(np.array(box) + move, 0, limit)
    return float(min(a, c)), float(min(b, d)), float(max(a, c)), float(max(b, d))


def deepest(mask: np.ndarray) -> tuple[int, int]:
    """The pixel (x, y) of a boolean mask (H, W) that is farthest from its edge; the mask must not be empty."""
    distance = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(int(distance.argmax()), mask.shape)
    return int(x), int(y)


def with_click(prompt: SlicePrompt | None, found: np.ndarray | None, truth: np.ndarray) -> SlicePrompt:
    """The prompt with one more click.

    Args:
        prompt: what was said so far, or None.
        found: (H, W) boolean mask that it gave, or None before the first.
        truth: (H, W) boolean.

    Returns:
        A click into the object at first, then into the deepest place that is missed or too much; the same prompt when
        nothing is wrong any more.
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
        prompt.box, np.concatenate([prompt.points, points]), np.concatenate([prompt.labels, labels]), prompt.mask
    )
