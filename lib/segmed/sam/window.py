"""The part of a slice that a small model looks at: a window around a box or a click, and the box drawn into it.

Object size stops mattering when the model always sees its object at about the same scale. The box is shown to the
encoder as a thin frame of a value that no picture has, so that all of its layers know what is asked for and not only
the decoder. Everything here works on batches and on any device, so that training and inference share it.
"""

from __future__ import annotations

import torch
from torch import Tensor

MARK = -1.0  # pixels are in [0, 1]
_FRAME = 1.5  # px of the model input
_SMALLEST = 16.0  # px of the slice: below, there is nothing to see but interpolation
_ASPECT = 2.0  # how far a window may be stretched to the square


def windows_around(boxes: Tensor, zoom: Tensor | float) -> Tensor:
    """Windows with the box in their middle.

    Args:
        boxes: (B, 4) x0, y0, x1, y1 in px of the slice, ends inclusive.
        zoom: sides of the window in sides of the box, one or (B,).

    Returns:
        (B, 4) left, top, width and height in px, measured between the edges of pixels; they may leave the slice.
    """
    sides = (boxes[:, 2:] - boxes[:, :2] + 1).clamp(min=1)
    zoom = torch.as_tensor(zoom, dtype=sides.dtype, device=sides.device).reshape(-1, 1)
    wanted = sides * zoom
    extent = torch.maximum(wanted, wanted.amax(1, keepdim=True) / _ASPECT).clamp(min=_SMALLEST)
    centre = (boxes[:, :2] + boxes[:, 2:] + 1) / 2
    return torch.cat([centre - extent / 2, extent], 1)


def squares_around(points: Tensor, side: Tensor | float) -> Tensor:
    """Square windows (B, 4) of a side in px with the pixels (B, 2) in their middle."""
    side = torch.as_tensor(side, dtype=points.dtype, device=points.device).reshape(-1, 1).expand(len(points), 2)
    return torch.cat([points + 0.5 - side / 2, side], 1)


def to_window(xy: Tensor, windows: Tensor, size: int) -> Tensor:
    """Pixels of the slice to pixels of the model input.

    Args:
        xy: (B, 2n) x, y, x, y, … of pixel centres.
        windows: (B, 4)
        size: side of the model input, px.
    """
    repeat = xy.shape[1] // 2
    corner, extent = windows[:, :2].repeat(1, repeat), windows[:, 2:].repeat(1, repeat)
    return (xy + 0.5 - corner) * size / extent - 0.5


def sampling_grid(windows: Tensor, height: int, width: int, size: int) -> Tensor:
    """The grid (B, size, size, 2) with which `grid_sample` shows windows of (height, width) slices."""
    theta = windows.new_zeros(len(windows), 2, 3)
    whole = windows.new_tensor([width, height])
    theta[:, [0, 1], [0, 1]] = windows[:, 2:] / whole
    theta[:, :, 2] = (2 * windows[:, :2] + windows[:, 2:]) / whole - 1
    return torch.nn.functional.affine_grid(theta, [len(windows), 1, size, size], align_corners=False)


def draw_frames(images: Tensor, boxes: Tensor) -> Tensor:
    """Model inputs with their boxes as frames of `MARK` just outside of them.

    Args:
        images: (B, 3, S, S)
        boxes: (B, 4) in px of the model input; NaN draws none.
    """
    place = torch.arange(images.shape[-1], device=images.device, dtype=boxes.dtype)
    low, high = boxes[:, :2, None] - place, place - boxes[:, 2:, None]
    outside = torch.maximum(low, high)  # (B, 2, S): distance from the box along x and y, negative inside
    distance = torch.maximum(outside[:, 0, None, :], outside[:, 1, :, None])
    half_pixel = 0.25  # the box ends at pixel centres
    frame = (distance > half_pixel) & (distance <= half_pixel + _FRAME)
    return torch.where(frame[:, None], torch.full_like(images, MARK), images)
