"""The windows in which the embedded default looks at a slice, and what is found in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from segmed.imaging.prompts import SlicePrompt
from segmed.sam.window import sampling_grid, squares_around

CUT_OFF = 0.15  # of predicted IoU that a mask loses on each axis on which its window cuts it off
CLICK_SIDES = (1.0, 0.5, 0.25, 0.125)  # windows around clicks, in longer sides of the slice


@dataclass(frozen=True)
class View:
    """One window on one slice with what is asked for in it.

    Attributes:
        b: the slice's place in its embedding.
        window: (4,) left, top, width, height in px of the slice.
        box: (4,) x0, y0, x1, y1 in px of the slice, or None.
        points: (N, 2) px of the slice.
        labels: (N,)
        flip: whether the window is mirrored left to right.
    """

    b: int
    window: Tensor
    box: Tensor | None
    points: Tensor
    labels: Tensor
    flip: bool = False


def around_clicks(b: int, prompt: SlicePrompt, longest: int) -> list[View]:
    """Windows of several sizes around the clicks into an object; `longest` is the longer side of the slice."""
    points, labels = clicks_of(prompt)
    wanted = points[labels == 1]
    middle = (wanted.amin(0) + wanted.amax(0)) / 2
    spread = float((wanted.amax(0) - wanted.amin(0)).max())
    views = []
    for share in CLICK_SIDES:
        window = squares_around(middle[None], max(share * longest, 2 * spread, 24.0))[0]
        inside = ((points + 0.5 >= window[:2]) & (points + 0.5 < window[:2] + window[2:])).all(1)
        views.append(View(b, window, None, points[inside], labels[inside]))
    return views


def clicks_of(prompt: SlicePrompt) -> tuple[Tensor, Tensor]:
    """Places (N, 2) in px of the slice, and labels (N,)."""
    return torch.from_numpy(prompt.points).float(), torch.from_numpy(prompt.labels).long()


def first_clicks(points: Tensor, views: Sequence[View]) -> Tensor:
    """The first click into the object of each view, (V, 2) out of points (V, N, 2)."""
    return torch.stack([p[int((v.labels == 1).nonzero()[0, 0])] for p, v in zip(points, views, strict=True)])


def cut_out(features: Tensor, views: Sequence[View], windows: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Windows of uint8 slices (B, C, H, W), shrunken ones smoothed before.

    Returns:
        (V, 3, side, side) in [0, 1], and which pixels lie on the slice, (V, side, side) boolean.
    """
    height, width = features.shape[2:]
    shown, valid = [], []
    for view, window in zip(views, windows, strict=True):
        image = features[view.b : view.b + 1]
        left, top = (int(v) for v in window[:2].floor().clamp(min=0))
        right, bottom = (int(v) for v in (window[:2] + window[2:]).ceil())
        left, top = max(0, min(left - 2, width - 1)), max(0, min(top - 2, height - 1))
        part = image[:, :, top : max(bottom + 2, top + 1), left : max(right + 2, left + 1)].float() / 255
        moved = window - window.new_tensor([left, top, 0, 0])
        factor = int(window[2:].min() / side)
        if factor > 1:
            # edges are repeated, so that the average of the last pixels is not darkened
            pad = [-part.shape[3] % factor, -part.shape[2] % factor]
            part = F.avg_pool2d(F.pad(part, (0, pad[0], 0, pad[1]), mode="replicate"), factor)
            moved = moved / factor
        grid = sampling_grid(moved[None].to(part.device), part.shape[2], part.shape[3], side)
        shown.append(F.grid_sample(part, grid, padding_mode="zeros", align_corners=False)[0].expand(3, -1, -1))
        valid.append((grid[0].abs() <= 1).all(-1))
    return torch.stack(shown), torch.stack(valid)


def best_box(
    masks: Tensor, quality: Tensor, views: Sequence[View], rows: Sequence[int], height: int, width: int
) -> Tensor:
    """The box of the most trustworthy mask; one that runs into the sides of its window is cut off there."""
    best, found = -1.0, None
    for n in rows:
        there = found_in(masks[n], views[n].window, height, width)
        if there and (score := float(quality[n]) - CUT_OFF * there[1]) > best:
            best, found = score, there[0]
    if found is None:  # nothing anywhere: a small box around the click
        centre = views[rows[0]].window[:2] + views[rows[0]].window[2:] / 2
        found = torch.cat([centre - 8, centre + 8])
    return found


def found_in(mask: Tensor, window: Tensor, height: int, width: int) -> tuple[Tensor, int] | None:
    """The box of a mask (t, t) on its slice, and the number of axes on which its window cuts it off; None if empty."""
    x, y = (mask > 0).any(0).nonzero()[:, 0], (mask > 0).any(1).nonzero()[:, 0]
    if not len(x):
        return None
    step = window[2:] / mask.shape[-1]
    low = window[:2] + torch.stack([x[0], y[0]]).cpu() * step
    high = window[:2] + (torch.stack([x[-1], y[-1]]).cpu() + 1) * step
    limit = torch.tensor([width, height])
    edge, end = 1.5 * step, window[:2] + window[2:]
    cut = ((low < window[:2] + edge) & (low > edge)) | ((high > end - edge) & (high < limit - edge))
    return torch.cat([low.clamp(min=0), torch.minimum(high, limit) - 1]), int(cut.sum())
