"""Windows: the part of a slice around a box or a click that a small model gets, with the box drawn into it.

A model that always gets its object at about the same scale need not learn all sizes of objects. The box is
drawn as a thin frame with a value that no image has, so that all layers of the encoder know the prompt and
not only the decoder. All functions work on batches and on any device, so that training and inference share
them.
"""

from __future__ import annotations

import torch
from torch import Tensor

MARK = -1.0  # value of frames; pixels are in [0, 1]
_FRAME = 1.5  # thickness of frames in px of the model input
_SMALLEST = 16.0  # smallest side in px of the slice; smaller windows would show interpolation only
_ASPECT = 2.0  # largest ratio of a window's sides, and so of its stretching to the square


def windows_around(boxes: Tensor, zoom: Tensor | float) -> Tensor:
    """Windows centred on boxes.

    Args:
        boxes: Boxes (B, 4) as x0, y0, x1, y1 in px of the slice, ends inclusive.
        zoom: Ratio of the sides of the window to those of the box, one for all or (B,).

    Returns:
        Windows (B, 4) as left, top, width and height in px, measured between the edges of pixels; they may
        extend beyond the slice.
    """
    sides = (boxes[:, 2:] - boxes[:, :2] + 1).clamp(min=1)
    zoom = torch.as_tensor(zoom, dtype=sides.dtype, device=sides.device).reshape(-1, 1)
    wanted = sides * zoom
    extent = torch.maximum(wanted, wanted.amax(1, keepdim=True) / _ASPECT).clamp(min=_SMALLEST)
    centre = (boxes[:, :2] + boxes[:, 2:] + 1) / 2
    return torch.cat([centre - extent / 2, extent], 1)


def squares_around(points: Tensor, side: Tensor | float) -> Tensor:
    """Square windows (B, 4) centred on pixels (B, 2), with one side in px for all or sides (B,)."""
    side = (
        torch.as_tensor(side, dtype=points.dtype, device=points.device).reshape(-1, 1).expand(len(points), 2)
    )
    return torch.cat([points + 0.5 - side / 2, side], 1)


def to_window(xy: Tensor, windows: Tensor, size: int) -> Tensor:
    """Map pixels of the slice to pixels of the model input.

    Args:
        xy: Pixel centres (B, 2n) as x, y, x, y, …
        windows: Windows (B, 4) as left, top, width and height in px of the slice.
        size: Side of the model input in px.

    Returns:
        The same pixel centres in px of the model input, (B, 2n).
    """
    repeat = xy.shape[1] // 2
    corner, extent = windows[:, :2].repeat(1, repeat), windows[:, 2:].repeat(1, repeat)
    return (xy + 0.5 - corner) * size / extent - 0.5


def sampling_grid(windows: Tensor, height: int, width: int, size: int) -> Tensor:
    """The grid (B, size, size, 2) for `grid_sample` that cuts windows out of height × width px."""
    # grid_sample measures a slice in [-1, 1] on both axes: x' = (extent / side) x + (2 corner + extent) /
    # side - 1.
    theta = windows.new_zeros(len(windows), 2, 3)
    whole = windows.new_tensor([width, height])
    theta[:, [0, 1], [0, 1]] = windows[:, 2:] / whole
    theta[:, :, 2] = (2 * windows[:, :2] + windows[:, 2:]) / whole - 1
    return torch.nn.functional.affine_grid(theta, [len(windows), 1, size, size], align_corners=False)


def draw_frames(images: Tensor, boxes: Tensor) -> Tensor:
    """Draw frames of the value `MARK` into model inputs, just outside of their boxes.

    Args:
        images: Model inputs (B, 3, S, S).
        boxes: Boxes (B, 4) in px of the model input; a box of NaN draws no frame.

    Returns:
        The images with frames, (B, 3, S, S).
    """
    place = torch.arange(images.shape[-1], device=images.device, dtype=boxes.dtype)
    low, high = boxes[:, :2, None] - place, place - boxes[:, 2:, None]
    outside = torch.maximum(low, high)  # (B, 2, S): distance from the box along x and y, negative inside
    distance = torch.maximum(outside[:, 0, None, :], outside[:, 1, :, None])
    half_pixel = 0.25  # the box ends at pixel centres
    frame = (distance > half_pixel) & (distance <= half_pixel + _FRAME)
    return torch.where(frame[:, None], torch.full_like(images, MARK), images)
