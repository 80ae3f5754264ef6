"""Constraints of prompts on masks, enforced on logits: tight boxes are filled, clicks are respected."""

from __future__ import annotations

import torch
from torch import Tensor

_SHIFTS = (
    0.0,
    0.25,
    0.5,
    1.0,
)  # values added to the logits, tried in this order until the mask fills the box
_FILLED = 0.9  # IoU of the mask's own box and the user's at which the box counts as filled
_BEYOND = 0.1  # share of the box's sides by which a mask may exceed the box
_CLICK_LOGIT = 8.0  # absolute logit at a click
_REACH = 0.12  # standard deviation of a click's neighbourhood, in mean sides of the object's box
_ALIKE = 0.6  # standard deviation of similar brightness, in standard deviations of the pixels in the box


def fill_box(logits: Tensor, box: Tensor) -> Tensor:
    """Grow a mask that does not reach the sides of its box by adding to its logits.

    Users draw boxes around the whole object, which therefore touches all four sides (Lempitsky et al., Image
    segmentation with a bounding box prior, ICCV 2009). The smallest shift that fills the box is taken, or the
    one that comes closest.

    Args:
        logits: Logits (H, W); pixels outside of the box, widened by a tenth of its sides, do not count.
        box: The box (4,) as x0, y0, x1, y1 in px of the logits, ends inclusive.

    Returns:
        The logits plus a constant, (H, W).
    """
    height, width = logits.shape
    x0, y0, x1, y1 = box.tolist()
    slack_x, slack_y = _BEYOND * (x1 - x0 + 1), _BEYOND * (y1 - y0 + 1)
    left, top = max(0, int(x0 - slack_x)), max(0, int(y0 - slack_y))
    right, bottom = min(width, int(x1 + slack_x) + 1), min(height, int(y1 + slack_y) + 1)
    inside = logits[top:bottom, left:right]
    if not inside.numel():
        return logits
    # The mask {logit > -s} reaches a column when the largest logit of the column exceeds -s; rows likewise.
    columns, rows = inside.amax(0).cpu(), inside.amax(1).cpu()
    best, chosen = -1.0, 0.0
    for shift in _SHIFTS:
        x, y = (columns > -shift).nonzero()[:, 0], (rows > -shift).nonzero()[:, 0]
        if not len(x):
            continue
        own = (left + int(x[0]), top + int(y[0]), left + int(x[-1]), top + int(y[-1]))
        overlap = _box_iou(own, (x0, y0, x1, y1))
        if overlap > best:
            best, chosen = overlap, shift
        if overlap >= _FILLED:
            break
    return logits + chosen


def enforce_clicks(logits: Tensor, image: Tensor, points: Tensor, labels: Tensor, box: Tensor) -> Tensor:
    """Pull the logits around each click towards its label, where the image looks as it does under the click.

    Args:
        logits: Logits (H, W).
        image: The slice (C, H, W), in any range of values.
        points: Clicks (N, 2) as x, y in px of the logits.
        labels: Labels (N,), 1 for clicks on the object and 0 for clicks beside it.
        box: The box (4,) around the object in px, which determines how far a click reaches.

    Returns:
        The changed logits, (H, W).
    """
    # Each click at c with label ±1 interpolates the logits L towards its own:
    #   w = exp(-|x - c|² / (2 (reach * side)²)) * exp(-|I(x) - I(c)|² / (2 (alike * spread)²))
    #   L <- L + w (max(L, 8) - L), or with min(L, -8) for a click beside the object.
    height, width = logits.shape
    side = float((box[2:] - box[:2] + 1).mean())
    x0, y0, x1, y1 = (int(v) for v in box.round().tolist())
    values = image.float()
    inside = values[:, max(0, y0) : y1 + 1, max(0, x0) : x1 + 1].flatten(1)
    # One pixel, or none for a click outside of the slice, has no deviation.
    spread = (inside.std(1).mean() if inside.shape[1] > 1 else inside.new_zeros(())).clamp(min=1e-3)
    y = torch.arange(height, device=logits.device)[:, None]
    x = torch.arange(width, device=logits.device)[None]
    for point, label in zip(points.tolist(), labels.tolist(), strict=True):
        column, row = min(max(round(point[0]), 0), width - 1), min(max(round(point[1]), 0), height - 1)
        near = torch.exp(-((x - column) ** 2 + (y - row) ** 2) / (2 * (_REACH * side) ** 2))
        here = values[:, max(0, row - 1) : row + 2, max(0, column - 1) : column + 2].mean(
            (1, 2), keepdim=True
        )
        alike = torch.exp(-((values - here) ** 2).mean(0) / (2 * (_ALIKE * spread) ** 2))
        weight = near * alike
        target = torch.full_like(logits, _CLICK_LOGIT if label else -_CLICK_LOGIT)
        stronger = torch.maximum(logits, target) if label else torch.minimum(logits, target)
        logits = logits + weight * (stronger - logits)
    return logits


def _box_iou(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """IoU of two boxes with ends inclusive."""
    sides = [max(0.0, min(one[n + 2], other[n + 2]) - max(one[n], other[n]) + 1) for n in (0, 1)]
    areas = [(b[2] - b[0] + 1) * (b[3] - b[1] + 1) for b in (one, other)]
    both = sides[0] * sides[1]
    return both / (areas[0] + areas[1] - both)
