"""Endpoints for labels as a whole, and for proposed objects."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from monailabel.endpoints.user.auth import User
from monailabel.interfaces.utils.app import app_instance

from segmed.server.access.gate import login_name
from segmed.server.http.sentence_route import SentenceRoute
from segmed.server.learning.strategies import user_name
from segmed.server.workspace.actions import WorkspaceActions
from segmed.server.workspace.edits.bodies import LabelBody, ObjectsBody, ProposalsBody
from segmed.server.workspace.edits.labels import (
    add_objects,
    delete_label,
    merge_label,
    recolour_label,
    rename_label,
)
from segmed.server.workspace.edits.proposals import propose
from segmed.server.workspace.patches import Patch
from segmed.server.workspace.routes import Who

router = APIRouter(prefix="/api", route_class=SentenceRoute)


def _actions(image: str, client: str, who: User, http: Request) -> WorkspaceActions:
    login = login_name(http)
    return WorkspaceActions(app_instance(), image, login or client, who.username, user_name(client, http))


@router.post("/images/{image}/labels")
def labels(image: str, body: LabelBody, who: Who, http: Request) -> dict[str, Any]:
    """Rename, merge, recolour or delete a label, which finishes the open object and can be undone."""
    with _actions(image, body.client, who, http).open(belief=body) as actions:
        work = actions.work
        if body.action == "rename":
            patches = rename_label(work, body.label, body.to)
        elif body.action == "merge":
            patches = merge_label(work, body.label, body.to)
        elif body.action == "recolour":
            patches = recolour_label(work, body.label, body.rgb)
        else:
            patches = delete_label(work, body.label)
        return actions.to_json(patches)


@router.post("/images/{image}/proposals")
def proposals(image: str, body: ProposalsBody, who: Who, http: Request) -> dict[str, Any]:
    """Propose masks of all objects on a slice; nothing is changed."""
    actions = _actions(image, body.client, who, http)
    with actions.app.turns.take(f"{who.username}/{body.client}", image):
        return {"proposals": propose(actions, body)}


@router.post("/images/{image}/objects")
def objects(image: str, body: ObjectsBody, who: Who, http: Request) -> dict[str, Any]:
    """Add the masks of several objects, such as accepted proposals, in one step of the history."""
    with _actions(image, body.client, who, http).open(belief=body) as actions:
        shape = actions.work.shape
        masks: dict[str, list[Patch]] = {}
        for one in body.objects:
            parsed = [Patch.parse(c.k, c.i, c.j, c.data, shape) for c in one.changes]
            masks.setdefault(one.label, []).extend(parsed)
        patches, voxels = add_objects(actions.work, masks, body.overwrite, body.locked)
        return actions.to_json(patches) | {"voxels": voxels}
