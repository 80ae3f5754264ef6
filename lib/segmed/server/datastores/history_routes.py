"""Former versions of saved labels: listed, downloaded, and brought back."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse
from monailabel.interfaces.utils.app import app_instance

from segmed.server.datastores.label_history import LabelHistory, bring_back, history_of
from segmed.server.datastores.studies import FINAL
from segmed.server.http.requests import check_tag
from segmed.server.http.routes import ANNOTATOR, USER, user_name

router = APIRouter(prefix="/api", tags=["Label history"])


@router.get("/images/{image}/history", dependencies=USER)
def history(image: str, tag: str = FINAL) -> list[dict[str, Any]]:
    """What was saved as label of an image before it was replaced or removed, the newest first."""
    return [one.to_json() for one in _history(image).versions(image, check_tag(tag))]


@router.get("/images/{image}/history/{version}", dependencies=USER)
def former_label(image: str, version: str, tag: str = FINAL) -> FileResponse:
    """A former label as a file."""
    found = _history(image).get(image, check_tag(tag), version)
    return FileResponse(found.file, filename=f"{image}{found.file.name[len(version) :]}")


@router.post("/images/{image}/history/{version}", dependencies=ANNOTATOR)
def restore(image: str, version: str, http: Request, tag: str = FINAL) -> dict[str, Any]:
    """Save a former label again; the one that it replaces goes into the history itself."""
    app = app_instance()
    app.image_path(image)
    saved = bring_back(app.datastore(), image, check_tag(tag), version)
    if tag == FINAL:
        app.on_save_label(image, saved, user_name(None, http))
    return {"image": image, "label": saved, "version": version}


def _history(image: str) -> LabelHistory:
    app = app_instance()
    app.image_path(image)
    return history_of(app.datastore())
