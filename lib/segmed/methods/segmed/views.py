"""The windows in which the default model looks at a slice: where they lie, and what is resampled into them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segmed.imaging.prompts import SlicePrompt
from segmed.sam.window import sampling_grid, squares_around, windows_around

CLICK_SIDES = (1.0, 0.5, 0.25, 0.125)  # windows around clicks, in longer sides of the slice
OUTSIDE = -20.0  # logit beyond all windows
_COMPARED = 256  # px, longer side at which masks are compared
_SMALLEST_CLICK = 24.0  # px, side of windows around clicks


@dataclass(frozen=True)
class View:
    """One window on one slice with what is asked for in it.

    Attributes:
        b: the slice's place in its embedding.
        window: (4,) left, top, width, height in px of the slice.
        prompt: what the user said about the slice; its box and mask are not shown, but those below.
        box: (4,) x0, y0, x1, y1 in px of the slice, or None.
        previous: (H, W) probability of the previous mask, or None.
        flip: whether the window is mirrored left to right.
    """

    b: int
    window: Tensor
    prompt: SlicePrompt
    box: Tensor | None = None
    previous: Tensor | None = None
    flip: bool = False


def clicks_of(prompt: SlicePrompt) -> tuple[Tensor, Tensor]:
    """Places (N, 2) in px of the slice, and labels (N,)."""
    return torch.from_numpy(prompt.points).float(), torch.from_numpy(prompt.labels).long()


def marked_on_object(prompt: SlicePrompt) -> Tensor:
    """Where the user pointed at the object: (N, 2) px of foreground clicks and of the ends of foreground scribbles."""
    points, labels = clicks_of(prompt)
    marks = [points[labels == 1]]
    if prompt.scribbles is not None and (prompt.scribbles == 1).any():
        y, x = np.nonzero(prompt.scribbles == 1)
        marks.append(torch.tensor([[x.min(), y.min()], [x.max(), y.max()]], dtype=torch.float32))
    return torch.cat(marks)


def is_lone_click(prompt: SlicePrompt) -> bool:
    """Whether one foreground click is all that was said, so that part, object and whole are all likely."""
    more = prompt.box is not None or prompt.mask is not None or prompt.neighbour is not None
    return not more and prompt.scribbles is None and prompt.labels.tolist() == [1]


def around_clicks(b: int, prompt: SlicePrompt, longest: int) -> list[View]:
    """Windows of several sizes around the clicks and strokes on an object; `longest` is the slice's longer side."""
    marks = marked_on_object(prompt)
    middle = (marks.amin(0) + marks.amax(0)) / 2
    spread = float((marks.amax(0) - marks.amin(0)).max())
    sides = [max(share * longest, 2 * spread, _SMALLEST_CLICK) for share in CLICK_SIDES]
    return [View(b, squares_around(middle[None], side)[0], prompt) for side in sides]


def around_box(
    b: int, prompt: SlicePrompt, frame: Tensor, zooms: Sequence[float], flips: bool, previous: Tensor | None = None
) -> list[View]:
    """Windows around a box (4,), of several sizes and mirrored; the user's own box is drawn into them."""
    box = None if prompt.box is None else torch.tensor(prompt.box, dtype=torch.float32) if prompt.loose else frame
    windows = [windows_around(frame[None], zoom)[0] for zoom in zooms]
    turns = (False, True) if flips else (False,)
    return [View(b, window, prompt, box, previous, flip) for window in windows for flip in turns]


def sample(maps: Tensor, window: Tensor, side: int, how: str = "mean") -> Tensor:
    """Maps (C, H, W) resampled in a window, shrunken ones smoothed before: (C, side, side).

    Args:
        maps: any values; the edge is repeated beyond the slice.
        window: (4,) left, top, width, height in px of the maps.
        side: px of the result.
        how: `mean` for images and masks, `max` for thin strokes, to shrink by.
    """
    height, width = maps.shape[1:]
    left, top = (int(v) for v in window[:2].floor())
    right, bottom = (int(v) for v in (window[:2] + window[2:]).ceil())
    factor = max(1, int(float(window[2:].max()) / side))
    pad = 2 * factor
    left, top = max(0, min(left - pad, width - 1)), max(0, min(top - pad, height - 1))
    part = maps[None, :, top : max(bottom + pad, top + 1), left : max(right + pad, left + 1)].float()
    moved = window - window.new_tensor([left, top, 0, 0])
    if factor > 1:
        # edges are repeated, so that the average of the last pixels is not darkened
        part = F.pad(part, (0, -part.shape[3] % factor, 0, -part.shape[2] % factor), mode="replicate")
        part = F.max_pool2d(part, factor) if how == "max" else F.avg_pool2d(part, factor)
        moved = moved / factor
    grid = sampling_grid(moved[None].to(part.device), part.shape[2], part.shape[3], side)
    return F.grid_sample(part, grid, padding_mode="border", align_corners=False)[0]


def on_slice(window: Tensor, height: int, width: int, side: int) -> Tensor:
    """Which pixels of a window lie on the slice: (side, side) boolean."""
    step = (torch.arange(side) + 0.5) / side
    x, y = window[0] + step * window[2], window[1] + step * window[3]
    return ((y >= 0) & (y <= height))[:, None] & ((x >= 0) & (x <= width))[None, :]


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


def place(masks: Tensor, windows: Sequence[Tensor], slice_size: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The mean of logits (V, t, t) where their windows lie, (H, W); `OUTSIDE` where none lies.

    Args:
        masks: logits of each window.
        windows: (4,) in px of the slice.
        slice_size: (H, W) of the slice.
        size: (H, W) of the result.
    """
    scale = torch.tensor([size[1] / slice_size[1], size[0] / slice_size[0]] * 2)
    total = torch.zeros(size, device=masks.device)
    count = torch.zeros(size, device=masks.device)
    for mask, window in zip(masks, windows, strict=True):
        left, top, width, height = (window * scale).tolist()
        x0, x1 = max(0, int(left)), min(size[1], int(np.ceil(left + width)))
        y0, y1 = max(0, int(top)), min(size[0], int(np.ceil(top + height)))
        if x1 > x0 and y1 > y0:
            x = (torch.arange(x0, x1, device=masks.device) + 0.5 - left) / width * 2 - 1
            y = (torch.arange(y0, y1, device=masks.device) + 0.5 - top) / height * 2 - 1
            grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)[None]
            part = F.grid_sample(mask[None, None], grid, padding_mode="border", align_corners=False)[0, 0]
            total[y0:y1, x0:x1] += part
            count[y0:y1, x0:x1] += 1
    return torch.where(count > 0, total / count.clamp(min=1), torch.full_like(total, OUTSIDE))


def most_expected(masks: Tensor, windows: Sequence[Tensor], trust: Sequence[float], slice_size: tuple[int, int]) -> int:
    """The place of the mask that is best in expectation: argmax over m of the sum over n of trust_n Dice(m, n).

    Each mask is a hypothesis of what a click means, as likely as it is trusted. The most trusted one alone is often a
    small part that one window shows well; what several windows agree on is more often meant.

    Args:
        masks: logits (N, t, t).
        windows: (4,) of each in px of the slice.
        trust: of each, not negative.
        slice_size: (H, W) of the slice.
    """
    scale = min(1.0, _COMPARED / max(slice_size))
    size = max(1, round(slice_size[0] * scale)), max(1, round(slice_size[1] * scale))
    seen = torch.stack([place(m[None], [w], slice_size, size) > 0 for m, w in zip(masks, windows, strict=True)])
    flat = seen.flatten(1).float()
    both, areas = flat @ flat.T, flat.sum(1)
    dice = 2 * both / (areas[:, None] + areas[None, :]).clamp(min=1)
    weights = torch.tensor(list(trust), device=flat.device)
    return int((dice @ weights * (weights > 0)).argmax())
