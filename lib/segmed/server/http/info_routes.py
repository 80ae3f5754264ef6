"""What is noted of images and labels: in place of MONAI Label's routes, which write down whatever they are
sent."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Form, Request
from monailabel.interfaces.utils.app import app_instance

from segmed.server.access.gate import login_name
from segmed.server.http.client_json import read_object
from segmed.server.http.requests import check_id, check_tag
from segmed.server.http.routes import ANNOTATOR, REVIEWER, USER

router = APIRouter(tags=["Datastore"])


@router.get("/datastore/image/info", dependencies=USER)
def image_info(image: str) -> dict[str, Any]:
    """What is known of an image, except where the server keeps it."""
    app = app_instance()
    app.image_path(image)
    return {k: v for k, v in app.datastore().get_image_info(image).items() if k != "path"}


@router.put("/datastore/image/info", dependencies=ANNOTATOR)
def note_image(image: str, info: str = Form("{}")) -> None:
    """Add to what is known of an image."""
    app = app_instance()
    app.image_path(image)
    app.datastore().update_image_info(image, read_object(info, "The field info"))


@router.put("/datastore/label/info", dependencies=ANNOTATOR)
def note_label(http: Request, label: str, tag: str, info: str = Form("{}")) -> None:
    """Add to what is known of a label, except what its values mean and, with a login, whose it is."""
    _note_label(http, label, tag, read_object(info, "The field info"))


@router.put("/datastore/updatelabelinfo", dependencies=REVIEWER)
def note_review(http: Request, label: str, tag: str, params: str = Form("{}")) -> None:
    """Add a review to what is known of a label, as the module MONAI Label Reviewer of 3D Slicer asks."""
    _note_label(http, label, tag, read_object(params, "The field params"))


def _note_label(http: Request, label: str, tag: str, noted: dict[str, Any]) -> None:
    noted.pop("segments", None)
    if login_name(http):
        noted.pop("client_id", None)
    app_instance().datastore().update_label_info(check_id(label, "label"), check_tag(tag), noted)
