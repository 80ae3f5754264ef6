"""Endpoints of workspaces, for the web page and for OHIF: open, prompt, correct, undo, save, download."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Depends, File, Form, Query, Request, UploadFile
from fastapi.responses import JSONResponse, Response, StreamingResponse
from monailabel.config import settings
from monailabel.datastore.local import LocalDatastore
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.utils.app import app_instance
from pydantic import ValidationError

import segmed
from segmed.client.version import API_VERSION
from segmed.data.pairs import natural
from segmed.imaging.planes import plane_axes
from segmed.imaging.reading import fingerprint
from segmed.server.access.audit import digest, note
from segmed.server.access.gate import login_name, login_role
from segmed.server.http.client_json import read_object
from segmed.server.http.errors import BadRequest
from segmed.server.http.requests import check_tag
from segmed.server.http.routes import USER
from segmed.server.http.sentence_route import SentenceRoute, describe
from segmed.server.http.volume_stream import nifti_pieces
from segmed.server.learning.strategies import user_name
from segmed.server.pages.image_list import attachment, download_name, list_entry
from segmed.server.segmenting.jobs import Key
from segmed.server.tasks.automatic import AutomaticInferTask
from segmed.server.tasks.infer import PromptInferTask
from segmed.server.workspace.actions import WorkspaceActions, workspace_key
from segmed.server.workspace.bodies import (
    ClearBody,
    Client,
    LabelMapParams,
    PaintBody,
    SaveBody,
)
from segmed.server.workspace.edits.labels import changed_values, refuse_locked
from segmed.server.workspace.label_output import write_download
from segmed.server.workspace.patches import Patch, inflate

_KINDS = {"nifti": ".nii.gz", "nrrd": ".seg.nrrd", "names": ".tsv", "seg": ".dcm", "rtstruct": ".dcm"}
_MEDIA = {".nii.gz": "application/gzip", ".tsv": "text/tab-separated-values", ".dcm": "application/dicom"}


router = APIRouter(prefix="/api", route_class=SentenceRoute)
Who = Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))]
Named = Annotated[str, Query(max_length=128)]
Writer = Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR))]


def actions_of(image: str, client: str, who: User, http: Request) -> WorkspaceActions:
    """The actions of the user who sends a request, on an image."""
    login = login_name(http)
    return WorkspaceActions(app_instance(), image, login or client, who.username, user_name(client, http))


def key_of(image: str, client: str, who: User, http: Request) -> Key:
    """The key of that user's workspace."""
    return workspace_key(who.username, login_name(http) or client, user_name(client, http), image)


@router.get("/state", dependencies=USER)
def state(http: Request) -> dict[str, Any]:
    """The models, labels and options that the server offers."""
    app = app_instance()
    models = [
        {
            "name": name,
            "description": task.description,
            "type": "automatic" if isinstance(task, AutomaticInferTask) else "prompt",
            "dimension": task.dimension,
            "labels": list(task.labels),
        }
        for name, task in app.init_infers().items()
        if isinstance(task, AutomaticInferTask | PromptInferTask)
    ]
    return {
        "version": segmed.__version__,
        "api": API_VERSION,
        "studies": app.studies_state(),
        "models": models,
        "labels": list(app.engine.settings.labels),
        "warning": app.engine.warning(),
        "user": login_name(http),
        "role": login_role(http),
    }


@router.get("/images", response_model=list[dict[str, Any]])
def images(who: Who, http: Request, client: Named = "") -> Response:
    """The images of the studies, and those on which the user has unsaved work."""
    store = app_instance().datastore()
    labelled = set(store.get_labeled_images())
    key = workspace_key(who.username, login_name(http) or client, user_name(client, http), "")
    unsaved = app_instance().workspaces.unsaved(key[:-1])
    listed = store.list_images()
    ordered = sorted(listed, key=natural) if isinstance(store, LocalDatastore) else listed
    # as it is: checking the entries of a long list again would take longer than making them
    return JSONResponse([list_entry(store, image, labelled, unsaved) for image in ordered])


@router.get("/images/{image}", dependencies=USER)
def image(image: str) -> dict[str, Any]:
    """An image: its grid, and the grey values of a suitable window."""
    app = app_instance()
    path = app.image_path(image)
    picture = app.engine.picture(path)
    info = app.datastore().get_image_info(image)
    name = str(info.get("description") or image)
    return {
        "id": image,
        "name": name,
        "shape": list(picture.shape),
        "affine": picture.affine.tolist(),
        "planes": plane_axes(picture.affine),
        "window": list(picture.levels),
        "note": picture.note.replace(Path(path).name, name),  # the folder of a series is named by its UID
        "study": info.get("StudyInstanceUID"),
        "series": info.get("SeriesInstanceUID"),
    }


@router.get("/images/{image}/volume.nii", dependencies=USER)
def volume(image: str, http: Request) -> Response:
    """The voxels as NIfTI, in the order of the label maps."""
    path = app_instance().image_path(image)
    headers = {"ETag": f'"{fingerprint(path)}"', "Cache-Control": "private, no-cache"}
    if headers["ETag"] in http.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    length, pieces = nifti_pieces(app_instance().engine.volume(path))
    headers["Content-Length"] = str(length)
    return StreamingResponse(pieces, media_type="application/octet-stream", headers=headers)


@router.get("/images/{image}/work")
def work(image: str, who: Who, http: Request, client: Named = "") -> dict[str, Any]:
    """The user's whole work on this image; a finished label is opened for correction."""
    with actions_of(image, client, who, http).open(returning=True) as actions:
        return actions.to_json(actions.work.everything())


@router.get("/images/{image}/revision")
def revision(image: str, who: Who, http: Request, client: Named = "") -> dict[str, Any]:
    """The revision of the user's work on this image, by which pages notice changes of other pages."""
    spaces = app_instance().workspaces
    key = workspace_key(who.username, client, user_name(client, http), image)
    return {"revision": spaces.revision(key), "boot": spaces.boot}


@router.post("/images/{image}/accept")
def accept(image: str, body: Client, who: Who, http: Request) -> dict[str, Any]:
    """Finish the open object; the next prompt begins another one."""
    with actions_of(image, body.client, who, http).open(belief=body) as actions:
        actions.work.accept()
        return actions.to_json([])


@router.post("/images/{image}/paint")
def paint(image: str, body: PaintBody, who: Who, http: Request) -> dict[str, Any]:
    """Paint strokes of brush or eraser, which finishes the open object."""
    with actions_of(image, body.client, who, http).open(belief=body) as actions:
        known = {0, *actions.work.labels.values()}
        if body.label:
            known.add(actions.work.value_of(body.label, keep=False))
        slices: dict[int, np.ndarray] = {}
        for change in body.changes:
            patch = Patch.parse(change.k, change.i, change.j, change.data, actions.work.shape)
            if strange := {int(v) for v in np.unique(patch.values())} - known:
                raise BadRequest(f"The value {min(strange)} belongs to no label. Name the painted label.")
            patch.put(slices.setdefault(patch.k, actions.work.slice(patch.k)))
        refuse_locked(actions.work, body.locked, changed_values(actions.work, slices))
        if body.label:
            actions.work.value_of(body.label)
        actions.work.by_hand = True
        return actions.to_json(actions.work.change(slices))


@router.post("/images/{image}/labelmap")
def labelmap(
    image: str, who: Who, http: Request, params: str = Form(...), file: UploadFile = File(...)
) -> dict[str, Any]:
    """Replace the label map by that of a viewer, resampled onto the grid of the image."""
    try:
        given = LabelMapParams.model_validate(read_object(params, "The field params"))
    except ValidationError as error:
        raise BadRequest(f"params.{describe(error.errors()[0])}") from error
    with actions_of(image, given.client, who, http).open(belief=given) as actions:
        return actions.replace(given, lambda size: inflate(file.file.read(), size))


@router.post("/images/{image}/undo")
def undo(image: str, body: Client, who: Who, http: Request) -> dict[str, Any]:
    """Undo the last step."""
    with actions_of(image, body.client, who, http).open(belief=body) as actions:
        return actions.to_json(actions.work.undo())


@router.post("/images/{image}/redo")
def redo(image: str, body: Client, who: Who, http: Request) -> dict[str, Any]:
    """Redo the last undone step."""
    with actions_of(image, body.client, who, http).open(belief=body) as actions:
        return actions.to_json(actions.work.redo())


@router.post("/images/{image}/clear")
def clear(image: str, body: ClearBody, who: Who, http: Request) -> dict[str, Any]:
    """Empty the label map, which can be undone."""
    with actions_of(image, body.client, who, http).open(belief=body) as actions:
        empty = np.zeros_like(actions.work.slice(0))
        cleared = dict.fromkeys(actions.work.filled(), empty)
        refuse_locked(actions.work, body.locked, changed_values(actions.work, cleared))
        return actions.to_json(actions.work.change(cleared))


@router.post("/images/{image}/save")
def save(image: str, body: SaveBody, who: Writer, http: Request) -> dict[str, Any]:
    """Save the label map into the studies."""
    check_tag(body.tag)
    with actions_of(image, body.client, who, http).open(belief=body) as actions:
        answer = actions.save(body.tag)
        file = app_instance().datastore().get_label_uri(answer["label"], body.tag)
        checksum = digest(Path(file)) if file else ""
        note(http, model=actions.work.model, version=actions.work.version, result=checksum)
        return answer


@router.get("/images/{image}/download")
def download(
    image: str,
    who: Who,
    http: Request,
    client: Named = "",
    format: Literal["nifti", "nrrd", "names", "seg", "rtstruct"] = "nifti",
) -> Response:
    """The label map as a file; `names` is the table with the meaning of the values of the NIfTI file."""
    with (
        actions_of(image, client, who, http).open() as actions,
        tempfile.TemporaryDirectory(prefix="download-") as folder,
    ):
        out = Path(folder) / f"labels{_KINDS[format]}"
        work, codes = actions.work, app_instance().codes
        made_by = work.model, work.version
        write_download(
            work.segments(), actions.grid, actions.path, out, format, *made_by, codes, work.records
        )
        content = out.read_bytes()
    name = download_name(actions.app.datastore().get_image_info(image), image, format, _KINDS[format])
    return Response(
        content,
        media_type=_MEDIA.get(_KINDS[format], "application/octet-stream"),
        headers={"Content-Disposition": attachment(name), "Cache-Control": "no-store"},
    )
