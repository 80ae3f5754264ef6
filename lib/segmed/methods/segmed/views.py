"""Views of the default model: the position of its windows on a slice, and resampling into and out of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segmed.imaging.prompts import SlicePrompt
from segmed.methods.segmed.prompt_channels import WindowPrompts
from segmed.sam.embedding import Embedding
from segmed.sam.window import sampling_grid, squares_around, to_window, windows_around

CLICK_SIDES = (1.0, 0.5, 0.25, 0.125)  # windows around clicks, in longer sides of the slice
OUTSIDE = -20.0  # logit outside of all windows
_COMPARED = 256  # longer side in px at which masks are compared
_SMALLEST_CLICK = 24.0  # smallest side in px of windows around clicks


@dataclass(frozen=True)
class View:
    """One window on one slice with its prompt.

    Attributes:
        b: Index of the slice in its embedding.
        window: The window (4,) as left, top, width, height in px of the slice.
        prompt: The user's prompt on the slice; `box` and `previous` below replace its box and mask.
        box: The box (4,) as x0, y0, x1, y1 in px of the slice, or None.
        previous: Probability of the previous mask, (H, W), or None.
        flip: Whether the window is mirrored left to right.
    """

    b: int
    window: Tensor
    prompt: SlicePrompt
    box: Tensor | None = None
    previous: Tensor | None = None
    flip: bool = False


def clicks_of(prompt: SlicePrompt) -> tuple[Tensor, Tensor]:
    """Positions (N, 2) of the clicks in px of the slice, and labels (N,)."""
    return torch.from_numpy(prompt.points).float(), torch.from_numpy(prompt.labels).long()


def marked_on_object(prompt: SlicePrompt) -> Tensor:
    """Foreground clicks and the corners of the box around foreground scribbles: (N, 2) px of the slice."""
    points, labels = clicks_of(prompt)
    marks = [points[labels == 1]]
    if prompt.scribbles is not None and (prompt.scribbles == 1).any():
        y, x = np.nonzero(prompt.scribbles == 1)
        marks.append(torch.tensor([[x.min(), y.min()], [x.max(), y.max()]], dtype=torch.float32))
    return torch.cat(marks)


def is_lone_click(prompt: SlicePrompt) -> bool:
    """Whether the prompt is a single foreground click, so that part, object and whole are all likely."""
    more = prompt.box is not None or prompt.mask is not None or prompt.neighbour is not None
    return not more and prompt.scribbles is None and prompt.labels.tolist() == [1]


def around_clicks(b: int, prompt: SlicePrompt, longest: int) -> list[View]:
    """Views of several sizes around the marks on an object; `longest` is the slice's longer side."""
    marks = marked_on_object(prompt)
    middle = (marks.amin(0) + marks.amax(0)) / 2
    spread = float((marks.amax(0) - marks.amin(0)).max())
    sides = [max(share * longest, 2 * spread, _SMALLEST_CLICK) for share in CLICK_SIDES]
    return [View(b, squares_around(middle[None], side)[0], prompt) for side in sides]


def around_box(
    b: int,
    prompt: SlicePrompt,
    frame: Tensor,
    zooms: Sequence[float],
    flips: bool,
    previous: Tensor | None = None,
) -> list[View]:
    """Views around a box (4,), of several sizes and mirrored; the user's own box is drawn into them."""
    box = (
        None
        if prompt.box is None
        else torch.tensor(prompt.box, dtype=torch.float32)
        if prompt.loose
        else frame
    )
    windows = [windows_around(frame[None], zoom)[0] for zoom in zooms]
    turns = (False, True) if flips else (False,)
    return [View(b, window, prompt, box, previous, flip) for window in windows for flip in turns]


def sample(maps: Tensor, window: Tensor, side: int, how: str = "mean") -> Tensor:
    """Resample maps (C, H, W) in a window to (C, side, side), smoothed first where they are reduced.

    Args:
        maps: Maps with any values; the edge is repeated beyond the slice.
        window: The window (4,) as left, top, width, height in px of the maps.
        side: Side of the result in px.
        how: Pooling for the reduction, `mean` for images and masks, `max` for thin strokes.
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
        # Edges are repeated so that zeros do not enter the average of the last pixels.
        part = F.pad(part, (0, -part.shape[3] % factor, 0, -part.shape[2] % factor), mode="replicate")
        part = F.max_pool2d(part, factor) if how == "max" else F.avg_pool2d(part, factor)
        moved = moved / factor
    grid = sampling_grid(moved[None].to(part.device), part.shape[2], part.shape[3], side)
    return F.grid_sample(part, grid, padding_mode="border", align_corners=False)[0]


def on_slice(window: Tensor, height: int, width: int, side: int) -> Tensor:
    """Boolean map (side, side) of the pixels of a window that lie on the slice."""
    step = (torch.arange(side) + 0.5) / side
    x, y = window[0] + step * window[2], window[1] + step * window[3]
    return ((y >= 0) & (y <= height))[:, None] & ((x >= 0) & (x <= width))[None, :]


def found_in(mask: Tensor, window: Tensor, height: int, width: int) -> tuple[Tensor, int] | None:
    """The box of a mask (t, t) on its slice, and on how many axes the window cuts it; None if empty."""
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


def place(
    masks: Tensor, windows: Sequence[Tensor], slice_size: tuple[int, int], size: tuple[int, int]
) -> Tensor:
    """Resample logits (V, t, t) from their windows to the slice and average them: (H, W).

    Args:
        masks: Logits of each window.
        windows: Windows (4,) in px of the slice.
        slice_size: Rows and columns (H, W) of the slice.
        size: Rows and columns (H, W) of the result.

    Returns:
        The mean of the logits of all windows that cover a pixel, and `OUTSIDE` for pixels outside of all
        windows.
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


def compared(masks: Tensor, windows: Sequence[Tensor], slice_size: tuple[int, int]) -> Tensor:
    """Place masks in the same reduced grid of their slice: logits (N, t, t) to (N, h, w)."""
    scale = min(1.0, _COMPARED / max(slice_size))
    size = max(1, round(slice_size[0] * scale)), max(1, round(slice_size[1] * scale))
    return torch.stack([place(m[None], [w], slice_size, size) for m, w in zip(masks, windows, strict=True)])


def expected_dice(placed: Tensor, trust: Sequence[float]) -> Tensor:
    """The expected Dice (N,) of each mask: e_m = sum over n of trust_n Dice(m, n) / sum over n of trust_n.

    Each mask is a hypothesis of the meant object, with a probability proportional to its trust. The most
    trusted mask alone is often a small part that fits one window well; an object on which several windows
    agree is more often meant. Masks without trust get 0.

    Args:
        placed: Logits (N, h, w) in the same grid.
        trust: Weight of each mask, not negative.
    """
    flat = (placed > 0).flatten(1).float()
    both, areas = flat @ flat.T, flat.sum(1)
    dice = 2 * both / (areas[:, None] + areas[None, :]).clamp(min=1)
    weights = torch.tensor(list(trust), device=flat.device)
    return dice @ weights * (weights > 0) / weights.sum().clamp(min=1e-6)


def network_inputs(
    embedding: Embedding, views: Sequence[View], side: int
) -> tuple[Tensor, Tensor, WindowPrompts]:
    """The inputs of the network for V views, mirrored where the view is.

    Args:
        embedding: The slices.
        views: The views.
        side: Side t of the network's input in px.

    Returns:
        The windows (V, 3, t, t) in [0, 1], boolean maps (V, t, t) of the pixels on the slice, and the
        prompts.
    """
    device = embedding.features.device
    height, width = embedding.frame.height, embedding.frame.width
    flips = torch.tensor([view.flip for view in views], device=device)
    most = max(len(view.prompt.labels) for view in views)
    prompts = WindowPrompts.nothing(len(views), side, most, device)
    previous, neighbour, near = (prompts.previous.clone() for _ in range(3))
    images, valid = [], []
    for n, view in enumerate(views):
        image = embedding.features[view.b]
        valid_pixels = on_slice(view.window, height, width, side).to(device)
        images.append((sample(image, view.window, side) / 255).expand(3, -1, -1) * valid_pixels)
        valid.append(valid_pixels)
        if view.box is not None:
            prompts.boxes[n] = to_window(view.box[None], view.window[None], side)[0].to(device)
        points, labels = clicks_of(view.prompt)
        # Clicks outside of the window are left out.
        low, high = view.window[:2], view.window[:2] + view.window[2:]
        inside = ((points + 0.5 >= low) & (points + 0.5 < high)).all(1)
        points, labels = points[inside], labels[inside]
        points = to_window(points, view.window.expand(len(points), 4), side)
        prompts.points[n, : len(points)] = points.to(device)
        prompts.labels[n, : len(points)] = labels.to(device)
        if view.prompt.scribbles is not None:
            strokes = torch.from_numpy(view.prompt.scribbles)
            both = torch.stack([strokes == 1, strokes == -1]).float().to(device)
            prompts.scribbles[n] = sample(both, view.window, side, "max") * valid_pixels
        if view.previous is not None:
            previous[n] = sample(view.previous.to(device)[None], view.window, side)[0] * valid_pixels
        if view.prompt.neighbour is not None:
            mask = torch.from_numpy(view.prompt.neighbour.mask).float().to(device)
            neighbour[n] = sample(mask[None], view.window, side)[0] * valid_pixels
            other = torch.from_numpy(view.prompt.neighbour.image).to(device)
            other = other[None] if other.dim() == 2 else other.permute(2, 0, 1)
            near[n] = sample(other, view.window, side).mean(0) / 255 * valid_pixels
    window_prompts = WindowPrompts(
        prompts.boxes, prompts.points, prompts.labels, prompts.scribbles, previous, neighbour, near
    ).flipped(flips)
    windows = torch.stack(images)
    windows = torch.where(flips[:, None, None, None], windows.flip(-1), windows)
    valid_maps = torch.stack(valid)
    return windows, torch.where(flips[:, None, None], valid_maps.flip(-1), valid_maps), window_prompts
