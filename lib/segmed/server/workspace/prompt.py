"""How prompts change a workspace: the object that they describe, and the labels of an automatic model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from segmed.imaging.planes import PlaneView
from segmed.inference.progress import Masks
from segmed.server.segmenting.plane_prompts import with_drawing
from segmed.server.workspace.bodies import PromptBody
from segmed.server.workspace.edits.names import label_name
from segmed.server.workspace.open_object import OpenObject
from segmed.server.workspace.workspace import Workspace


def described_object(work: Workspace, body: PromptBody, view: PlaneView) -> tuple[OpenObject, list[str]]:
    """The open object, or a new one, with the prompts of a request.

    Args:
        work: Workspace with the open object, which is not changed.
        body: Prompts to add.
        view: View of the image in the plane of the prompts.

    Returns:
        The object, and messages for the user.

    Raises:
        ValueError: The prompts are unusable.
    """
    name, shape = label_name(body.label), work.shape
    opened = work.opened
    if opened is None or opened.label != name:
        opened = OpenObject(name, work.value_of(name, keep=False))
    opened = opened.in_plane(view.axis)
    opened, notes = opened.with_clicks(shape, body.box, body.foreground, body.background)
    opened = with_drawing(opened, view, body.scribbles, body.lasso)
    named = opened.box or opened.foreground or opened.masks or any(into for into, _ in opened.strokes)
    if body.refine or (not named and (opened.background or opened.strokes)):
        masks = {k: work.slice(k) == opened.value for k in work.filled()}
        opened = replace(opened.with_masks({k: m for k, m in masks.items() if m.any()}), adopts=True)
        if not opened.masks and body.refine:
            notes = [*notes, f"There is nothing of {name} yet that could be refined."]
    return opened, notes


def merged_slices(
    work: Workspace, labels: np.ndarray, table: np.ndarray, overwrite: bool
) -> tuple[dict[int, np.ndarray], Masks, dict[int, np.ndarray]]:
    """Slices of a workspace with the labels of an automatic model in place of their earlier voxels.

    Args:
        work: Workspace, which is not changed.
        labels: Label map (I, J, K) by the model, values 0, 1, …, n.
        table: Value (n + 1,) in the workspace by value of the model; 0 for 0.
        overwrite: Whether the model's labels take voxels of other labels.

    Returns:
        The new values (H, W), uint8; the masks (H, W) of the model's labels, boolean; and the values before;
        each by slice.
    """
    slices, masks, before = {}, {}, {}
    for k in {*work.filled(), *(int(k) for k in np.flatnonzero(labels.any(axis=(0, 1))))}:
        values, structures = work.slice(k), table[labels[:, :, k].T]
        before[k], masks[k] = values.copy(), structures > 0
        values[np.isin(values, table[1:])] = 0
        taken = masks[k] & (overwrite | (values == 0))
        slices[k] = np.where(taken, structures, values)
    return slices, masks, before
