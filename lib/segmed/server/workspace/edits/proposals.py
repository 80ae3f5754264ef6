"""Proposed masks of everything on a slice, for the user to accept or reject."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from segmed.inference.automatic_masks import PRESETS, automatic_masks
from segmed.server.http.errors import BadRequest
from segmed.server.tasks.infer import PromptInferTask
from segmed.server.workspace.actions import WorkspaceActions
from segmed.server.workspace.edits.bodies import ProposalsBody
from segmed.server.workspace.patches import Patch

_MOST = 255  # objects that a label map holds
_PRESET = "relaxed"
_SMALLEST = 16  # px; less is noise, and cannot be clicked on


def propose(actions: WorkspaceActions, body: ProposalsBody) -> list[dict[str, Any]]:
    """Masks for all objects on a slice, by a grid of clicks (Kirillov et al., 2023).

    Args:
        actions: Request on an image; its workspace is neither opened nor changed.
        body: Model, slice and grid.

    Returns:
        The masks with the highest scores first, each as the JSON values of a `Patch`, with its `score`.

    Raises:
        BadRequest: The model takes no clicks, or the image has no such slice.
    """
    task, depth = actions.app.task(body.model), actions.picture.shape[2]
    if not isinstance(task, PromptInferTask):
        raise BadRequest(f"The model {body.model} takes no clicks. Choose another one.")
    if body.k >= depth:
        raise BadRequest(f"There is no slice {body.k}; the image has the slices 0 to {depth - 1}.")
    engine = actions.engine
    picture = engine.denoised(engine.picture(actions.path, body.window), body.denoise)
    config = replace(PRESETS[_PRESET], points_per_side=body.points)
    with actions.learning.user_request():
        found = automatic_masks(engine.predictor(task.method, body.device), picture, body.k, config)
    seen = [one for one in found if one.mask.sum() >= _SMALLEST][:_MOST]
    cut = ((one.score, Patch.cut(body.k, one.mask, one.mask)) for one in seen)
    return [{"score": round(score, 4), **patch.to_json()} for score, patch in cut if patch is not None]
