"""A simulated annotator of volumes: boxes, clicks, and corrections of the largest error on any slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import ndimage

from segmed.imaging.labels.masks import bounding_box, slice_box
from segmed.imaging.prompts import Box, Point, Prompt
from segmed.simulation.slice_annotator import deepest

_NEIGHBOURS = ndimage.generate_binary_structure(3, 1)


def largest_slice(mask: np.ndarray) -> int:
    """Index of the slice with the largest area of a mask (I, J, K)."""
    return int(mask.sum((0, 1)).argmax())


def flat_box(mask: np.ndarray) -> Box:
    """The tight box around a mask (I, J, K) on its largest slice."""
    k = largest_slice(mask)
    x0, y0, x1, y1 = (int(v) for v in slice_box(mask[:, :, k].T))
    return Box((x0, x1), (y0, y1), (k, k))


def box_over_slices(mask: np.ndarray) -> Box:
    """The tight box around a mask (I, J, K) that is not empty."""
    found = bounding_box(mask)
    assert found is not None
    return Box(*found)


def middle_click(mask: np.ndarray) -> Point:
    """The voxel on the largest slice of a mask (I, J, K) that is farthest from its edge there."""
    k = largest_slice(mask)
    x, y = deepest(mask[:, :, k].T)
    return x, y, k


def largest_error(
    found: np.ndarray, truth: np.ndarray, spacing: Sequence[float]
) -> tuple[Point, bool] | None:
    """Find the largest error of a mask.

    Args:
        found: The predicted mask (I, J, K), boolean.
        truth: The true mask (I, J, K), boolean.
        spacing: Spacing of voxels in mm.

    Returns:
        The deepest voxel of the largest connected part that is missed or extra, and whether it is missed;
        None if nothing is wrong.
    """
    whole = bounding_box(found ^ truth)
    if whole is None:
        return None
    box = tuple(slice(low, high + 1) for low, high in whole)
    best, size, is_missed = np.zeros(0, bool), 0, True
    for missed, error in ((True, truth[box] & ~found[box]), (False, found[box] & ~truth[box])):
        parts, count = ndimage.label(error, _NEIGHBOURS)
        sizes = np.bincount(parts.ravel(), minlength=2)[1:]
        if count and sizes.max() > size:
            best, size, is_missed = parts == 1 + int(sizes.argmax()), int(sizes.max()), missed
    at = _deepest_voxel(best, spacing)
    i, j, k = (a + low for a, (low, _) in zip(at, whole, strict=True))
    return (i, j, k), is_missed


def _deepest_voxel(mask: np.ndarray, spacing: Sequence[float]) -> Point:
    """The voxel farthest from the edge of a mask (I, J, K).

    Of several such voxels, as in parts one slice thick, it is the one farthest from the edge on its slice.
    """
    depth = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=tuple(float(v) for v in spacing))[
        1:-1, 1:-1, 1:-1
    ]
    deep = depth >= depth.max() - 1e-6
    best, at = -1.0, (0, 0, 0)
    for k in (int(k) for k in np.flatnonzero(deep.any((0, 1)))):
        flat = ndimage.distance_transform_edt(np.pad(mask[:, :, k], 1))[1:-1, 1:-1] * deep[:, :, k]
        if flat.max() > best:
            i, j = np.unravel_index(int(flat.argmax()), flat.shape)
            best, at = float(flat.max()), (int(i), int(j), k)
    return at


def with_correction(
    prompt: Prompt, found: np.ndarray, truth: np.ndarray, spacing: Sequence[float], send_mask: bool = False
) -> Prompt:
    """Add a correcting click to a prompt.

    Args:
        prompt: The prompt so far.
        found: The predicted mask (I, J, K), boolean.
        truth: The true mask (I, J, K), boolean.
        spacing: Spacing of voxels in mm.
        send_mask: Whether the prompt contains the mask as well, as when a user refines an object; otherwise
            the viewers send the box and all clicks.

    Returns:
        The prompt with a click at the deepest voxel of the largest error; the same prompt if nothing is
        wrong.
    """
    error = largest_error(found, truth, spacing)
    if error is None:
        return prompt
    click, is_missed = error
    clicked = (
        replace(prompt, foreground=tuple(dict.fromkeys((*prompt.foreground, click))))
        if is_missed
        else replace(prompt, background=tuple(dict.fromkeys((*prompt.background, click))))
    )
    return replace(clicked, mask=found if send_mask and found.any() else None)
