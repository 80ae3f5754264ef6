"""Prompts that are drawn in a plane of the volume, as the object keeps them and as the model gets them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from segmed.imaging.labels.masks import stack_slices
from segmed.imaging.labels.provenance import array_checksum
from segmed.imaging.planes import SLICES, PlaneView
from segmed.imaging.prompts import Box, Prompt
from segmed.imaging.scribbles import Scribbles, check_slice, draw_lasso, draw_stroke
from segmed.server.workspace.bodies import Lasso, Stroke
from segmed.server.workspace.drawn_lines import DrawnLine
from segmed.server.workspace.open_object import OpenObject
from segmed.server.workspace.patches import Patch

_WHOLE = 3  # stored slices with a mask, from which on an object is more than a contour


def with_drawing(
    opened: OpenObject, view: PlaneView, strokes: list[Stroke], lasso: Lasso | None
) -> OpenObject:
    """The object with scribbles and a lasso that were drawn in a view.

    Raises:
        ValueError: They lie outside the image, enclose nothing, or are too many.
    """
    opened = _with_pixels(opened, view, strokes, lasso)
    lines = [DrawnLine.through(view.axis, one.k, one.points, one.foreground) for one in strokes]
    if lasso is not None:
        lines.append(DrawnLine.through(view.axis, lasso.k, lasso.points, closed=True))
    return replace(opened, lines=(*opened.lines, *lines))


def _with_pixels(
    opened: OpenObject, view: PlaneView, strokes: list[Stroke], lasso: Lasso | None
) -> OpenObject:
    """The object with the pixels on and inside of the lines."""
    if view.axis == SLICES:
        opened = opened.with_strokes(view.shape, strokes)
        return opened.with_lasso(view.shape, lasso) if lasso else opened
    size = (*view.plain_size, view.shape[view.axis])
    drawn = []
    for stroke in strokes:
        check_slice(stroke.k, size)
        patch = Patch.cut(stroke.k, *2 * (_stroke(view, stroke),), axis=view.axis)
        assert patch is not None
        drawn.append((stroke.foreground, patch))
    opened = opened.with_drawn(drawn)
    if lasso is None:
        return opened
    box, inside = draw_lasso(lasso.k, lasso.points, size)
    ranges = {axis: part for axis, part in zip(view.order, (box.i, box.j, box.k), strict=True)}
    return opened.with_masks(view.stored_masks({lasso.k: inside}), Box(ranges[0], ranges[1], ranges[2]))


def _stroke(view: PlaneView, stroke: Stroke) -> np.ndarray:
    """The pixels (Q, P) of a stroke, whose width is meant in square pixels."""
    centre = draw_stroke(stroke.points, 1, view.plain_size)
    factors = np.array(view.square_size) / view.plain_size
    points = [[(at + 0.5) * by - 0.5 for at, by in zip(p, factors, strict=True)] for p in stroke.points]
    return np.asarray(centre | view.reduced(draw_stroke(points, stroke.width, view.square_size)))


def model_prompt(
    opened: OpenObject, view: PlaneView, scribbles: Scribbles, with_result: bool, by_strokes: bool = True
) -> Prompt:
    """The whole prompt for a model that segments in a view.

    Args:
        opened: Object.
        view: View of the image.
        scribbles: All scribbles of the object, on stored slices.
        with_result: Whether to include the present result as the mask to correct.
        by_strokes: Whether to include masks that are corrected by the strokes, see `OpenObject.prompt`.

    Raises:
        ValueError: No prompt shows the object.
    """
    if view.axis == SLICES and not opened.settled:
        return opened.prompt(view.shape, scribbles, with_result, by_strokes)
    if with_result and 0 < len(opened.settled) < _WHOLE:
        with_result = False  # contours in another plane cross this one as lines, which are no mask to correct
    result = view.square_masks({k: patch.full(view.shape) for k, patch in opened.result.items()})
    drawn = view.square_masks({k: patch.full(view.shape) for k, patch in opened.masks.items()})
    own = _scribbles_in(opened, view)
    masks = (result or drawn) if with_result else drawn
    if by_strokes:
        masks = {**masks, **own.mask_prompts(drawn | result)}
    mask = stack_slices(masks, view.square_shape).astype(bool) if masks else None
    points = (tuple(view.point(p) for p in points) for points in (opened.foreground, opened.background))
    foreground, background = points
    box = view.box(opened.box) if opened.box else None
    return Prompt(box, foreground, background, mask, own.maps(), opened.has_outline and not with_result)


def recorded_prompt(opened: OpenObject, view: PlaneView, asked: Prompt) -> dict[str, Any]:
    """The prompt of an answer as it is recorded: box and clicks in voxels, drawings by their checksums.

    Args:
        opened: Object.
        view: View that was segmented.
        asked: Prompt that the model got.
    """
    told: dict[str, Any] = {"axis": view.axis} if view.axis != SLICES else {}
    if opened.box is not None:
        told["roi"] = [end for part in (opened.box.i, opened.box.j, opened.box.k) for end in part]
    told["foreground"] = [list(point) for point in opened.foreground]
    told["background"] = [list(point) for point in opened.background]
    if asked.mask is not None and asked.mask.any():
        told["mask"] = {"SHA256": array_checksum(asked.mask)}
    if asked.scribbles:
        told["scribbles"] = {str(k): array_checksum(drawn) for k, drawn in sorted(asked.scribbles.items())}
    return told


def _scribbles_in(opened: OpenObject, view: PlaneView) -> Scribbles:
    """The scribbles that were drawn in the plane of a view, as square pixels."""
    out = Scribbles()
    for foreground, patch in opened.strokes:
        if patch.axis == view.axis:
            out = out.with_stroke(patch.k, view.enlarged(patch.full(view.plain_size)), foreground)
    return out
