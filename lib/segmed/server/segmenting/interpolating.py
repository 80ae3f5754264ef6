"""Filling the gaps between slices on which an object was drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from segmed.imaging.labels.interpolation import interpolated
from segmed.imaging.planes import PlaneName, PlaneView, axis_across
from segmed.server.workspace.actions import WorkspaceActions
from segmed.server.workspace.bodies import Client, Locked, Name
from segmed.server.workspace.edits.labels import keep_locked, refuse_locked


class InterpolateBody(Client):
    """The label to interpolate.

    Attributes:
        label: Name of the structure.
        plane: Plane on whose slices it was drawn; None for the stored slices.
        between: Slices of that plane whose masks are right; the label on slices between them is replaced.
            Empty for all slices that show the label, so that only gaps are filled.
        overwrite: Whether voxels of other labels are taken.
        locked: Names of labels whose voxels stay even with `overwrite`.
    """

    label: Name
    plane: PlaneName | None = None
    between: list[int] = Field(default=[], max_length=5000)
    overwrite: bool = False
    locked: Locked = Field(default=[])


def interpolate(actions: WorkspaceActions, body: InterpolateBody) -> dict[str, Any]:
    """Fill the slices between those that show the label, in one step of the history.

    Raises:
        ValueError: There is no gap, a named slice does not show the label, or the label is locked.
    """
    work, affine = actions.work, actions.picture.affine
    value = work.value_of(body.label, keep=False)
    refuse_locked(work, body.locked, [value])
    view = PlaneView.of(work.shape, affine, axis_across(body.plane, affine))
    label = {k: work.slice(k) == value for k in work.filled()}
    drawn = view.plain_masks(label)
    if empty := sorted(set(body.between) - set(drawn)):
        raise ValueError(
            f"Slice {empty[0]} does not show {body.label}. Draw it there, or name another slice."
        )
    p, q, _ = view.order
    known = {n: drawn[n] for n in body.between} if body.between else drawn
    filled = interpolated(known, (view.edges[q], view.edges[p]))
    if not filled:
        raise ValueError(
            f"There is no slice between those that show {body.label}. Draw it on two slices that are farther "
            "apart, then interpolate."
        )
    whole = view.stored_masks(filled, label)
    slices = {}
    for k, mask in whole.items():
        values = work.slice(k)
        values[(values == value) & ~mask] = 0
        values[mask & (body.overwrite | (values == 0))] = value
        slices[k] = values
    for k in set(label) - set(whole):
        slices[k] = np.where(label[k], 0, work.slice(k)).astype(np.uint8)
    slices, _ = keep_locked(work, body.locked, {k: work.slice(k) for k in slices}, slices)
    work.value_of(body.label)
    work.by_hand = True
    return actions.to_json(work.change(slices))
