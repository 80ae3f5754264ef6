"""Endpoints for labels as a whole, and for proposed objects."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from segmed.server.http.sentence_route import SentenceRoute
from segmed.server.workspace.edits.bodies import LabelBody, ObjectsBody, ProposalsBody
from segmed.server.workspace.edits.labels import (
    add_objects,
    delete_label,
    merge_label,
    recolour_label,
    refuse_locked,
    rename_label,
)
from segmed.server.workspace.edits.proposals import propose
from segmed.server.workspace.patches import Patch
from segmed.server.workspace.routes import Who, actions_of

router = APIRouter(prefix="/api", route_class=SentenceRoute)


@router.post("/images/{image}/labels")
def labels(image: str, body: LabelBody, who: Who, http: Request) -> dict[str, Any]:
    """Rename, merge, recolour or delete a label, which finishes the open object and can be undone."""
    with actions_of(image, body.client, who, http).open(belief=body) as actions:
        work = actions.work
        if body.action in ("delete", "merge"):
            touched = [work.labels[name] for name in (body.label, body.to) if name in work.labels]
            refuse_locked(work, body.locked, touched)
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
    actions = actions_of(image, body.client, who, http)
    with actions.app.turns.take(f"{who.username}/{body.client}", image):
        return {"proposals": propose(actions, body)}


@router.post("/images/{image}/objects")
def objects(image: str, body: ObjectsBody, who: Who, http: Request) -> dict[str, Any]:
    """Add the masks of several objects, such as accepted proposals, in one step of the history."""
    with actions_of(image, body.client, who, http).open(belief=body) as actions:
        shape = actions.work.shape
        masks: dict[str, list[Patch]] = {}
        for one in body.objects:
            parsed = [Patch.parse(c.k, c.i, c.j, c.data, shape) for c in one.changes]
            masks.setdefault(one.label, []).extend(parsed)
        patches, voxels = add_objects(actions.work, masks, body.overwrite, body.locked)
        return actions.to_json(patches) | {"voxels": voxels}
