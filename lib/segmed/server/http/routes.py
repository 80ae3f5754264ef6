"""Endpoints in place of MONAI Label's own: they check what comes in, and run in worker threads.

MONAI Label's are coroutines around blocking code, so that one inference stops the whole server. Plain
functions are run by FastAPI in threads.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import subprocess
import tempfile
import threading
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, BinaryIO, Literal

from fastapi import APIRouter, Depends, File, Form, Request, UploadFile
from fastapi.responses import Response, StreamingResponse
from monailabel.config import settings
from monailabel.datastore.local import LocalDatastore
from monailabel.endpoints.user.auth import RBAC
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.async_tasks.task import AsyncTask
from monailabel.utils.async_tasks.utils import processes, tasks

from segmed.imaging.formats.seg_nrrd import SEGMENTATION, is_segmentation
from segmed.imaging.formats.text_headers import check_alone
from segmed.imaging.grid import image_grid
from segmed.server.access.audit import digest, note
from segmed.server.access.gate import login_name
from segmed.server.datastores.folder_datastore import FolderDatastore
from segmed.server.datastores.label_check import noted, take_label
from segmed.server.datastores.studies import FINAL
from segmed.server.decoding import decoder
from segmed.server.http.client_json import read_object
from segmed.server.http.errors import BadRequest
from segmed.server.http.requests import (
    SENT_EXTENSIONS,
    check_id,
    check_tag,
    check_upload,
    parse_params,
    unknown_params,
)
from segmed.server.http.sessions import find_session
from segmed.server.learning.strategies import user_name
from segmed.server.leaving import ends_with
from segmed.server.tasks.answers import HEADER, header_value
from segmed.server.tasks.train_names import own_names

logger = logging.getLogger(__name__)
router = APIRouter()

USER = [Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))]
ADMIN = [Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ADMIN))]
REVIEWER = [Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_REVIEWER))]
ANNOTATOR = [Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR))]
_PIECE = 2**20
_STOPS_WITHIN = 20  # seconds
_asking_for_training = threading.Lock()
_LABEL_EXTENSIONS = (".nii.gz", ".nii", ".nrrd", ".mha", ".png", ".bmp", ".tif", ".tiff")


@router.post("/infer/{model}", dependencies=USER)
def infer(
    http: Request,
    model: str,
    image: str = "",
    session_id: str = "",
    params: str = Form("{}"),
    file: UploadFile = File(None),
    label: UploadFile = File(None),
    output: Literal["image", "json", "all"] | None = None,
) -> Response:
    """Segment an image of the studies (`image`), of a session (`session_id`), or an uploaded one (`file`).

    `label` is a label map with scribbles, or one whose label is to be refined.
    """
    app = app_instance()
    app.task(model)
    request: dict[str, Any] = {"model": model, "params": parse_params(params)}
    note(http, prompt=digest(params.encode("utf-8", "replace")), model=model)
    user = user_name(read_object(params, "The field params").get("client_id"), http)
    with app.turns.take(user, image or session_id), tempfile.TemporaryDirectory(prefix="infer-") as folder:
        if session_id:
            request["image_path"] = Path(find_session(session_id).image)
        elif file is not None and file.filename:
            request["image_path"] = receive_file(file, Path(folder))
        elif image:
            request |= {"image": image, "user": user}
        else:
            raise BadRequest("There is no image: name one by ?image=, open a session, or send a file.")
        if label is not None and label.filename:
            extension = check_upload(label.filename, _LABEL_EXTENSIONS)
            request["label_path"] = receive_file(label, Path(folder), f"label{extension}")
        with ends_with(http):
            result = app.infer(request)
        result["params"].setdefault("warnings", []).extend(unknown_params(params, app.engine.settings.labels))
        return _answer(result, output)


def _answer(result: dict[str, Any], output: str | None) -> Response:
    """The mask alone, the parameters alone, or both as multipart, which is what 3D Slicer reads."""
    told, path = json.dumps(result["params"]), Path(result["file"])
    with contextlib.ExitStack() as stack:
        mask = stack.enter_context(path.open("rb"))
        path.unlink()
        if output == "json":
            return Response(told, media_type="application/json")
        stack.pop_all()  # the stream closes the file
    name = "mask" + "".join(path.suffixes)
    if output == "image":
        kind, head, tail = "application/octet-stream", b"", b""
    else:
        boundary = uuid.uuid4().hex
        kind = f"multipart/form-data; boundary={boundary}"
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="params"\r\nContent-Type: '
            f"application/json\r\n\r\n"
            f'{told}\r\n--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode()
        tail = f"\r\n--{boundary}--\r\n".encode()
    headers = {
        "Content-Length": str(len(head) + os.fstat(mask.fileno()).st_size + len(tail)),
        "Content-Disposition": f'attachment; filename="{name}"',
        HEADER: header_value(result["params"]["provenance"]),  # for viewers that take the mask alone
    }
    return StreamingResponse(_stream(head, mask, tail), media_type=kind, headers=headers)


async def _stream(head: bytes, file: BinaryIO, tail: bytes) -> AsyncIterator[bytes]:
    """Piece by piece: a mask of a large volume is mostly zeros, but many."""
    with file:
        yield head
        while piece := file.read(_PIECE):
            yield piece
        yield tail


@router.put("/datastore/", dependencies=ANNOTATOR, include_in_schema=False)
@router.put("/datastore/image", dependencies=ANNOTATOR)
def add_image(
    image: str = "", new_name: bool = False, params: str = Form("{}"), file: UploadFile = File(...)
) -> dict[str, Any]:
    """Add an image to the studies; it must be readable, and its name free.

    With `new_name` an image whose name is taken gets a number behind it; the answer tells the name.
    """
    extension = check_upload(file.filename, tuple(e for e in SENT_EXTENSIONS if e != ".dcm"))
    name = check_id(image or Path(file.filename or "").name.removesuffix(extension))
    with tempfile.TemporaryDirectory(prefix="upload-") as folder:
        path = receive_file(file, Path(folder))
        decoder().check(path)
        if is_segmentation(path):
            raise BadRequest(
                "The file is a segmentation of 3D Slicer and no image. Send it as the label map of its image."
            )
        store = app_instance().datastore()
        if new_name and isinstance(store, FolderDatastore):
            name = store.free_name(name)
        added = store.add_image(name, str(path), read_object(params, "The field params"))
    app_instance().workspaces.forget(added)
    app_instance().learning.changed()
    return {"image": added}


@router.put("/datastore/label", dependencies=ANNOTATOR)
def save_label(
    http: Request, image: str, params: str = Form("{}"), tag: str = "final", label: UploadFile = File(...)
) -> dict[str, Any]:
    """Save a finished label of an image; it must lie on the image, and its values must be labels."""
    app = app_instance()
    file = Path(app.image_path(image))
    info = read_object(params, "The field params")
    for told in ("segments", "provenance"):
        info.pop(told, None)
    if login := login_name(http):
        info["client_id"] = login
    check_tag(tag)
    extension = check_upload(label.filename, _LABEL_EXTENSIONS)
    store = app.datastore()
    with tempfile.TemporaryDirectory(prefix="label-") as folder:
        path = receive_file(label, Path(folder), f"label{extension}")
        if is_segmentation(path):
            path = path.rename(path.with_name(f"label{SEGMENTATION}"))
        if isinstance(store, LocalDatastore):  # others bring it onto the grid of the image themselves
            settings = app.engine.settings
            picture = app.engine.picture(file)
            grid = image_grid(file, picture.shape, picture.affine)
            info["segments"] = noted(take_label(path, grid, info, settings.structures))
        if known := app.answers.of(user_name(info.get("client_id"), http), image):
            info["provenance"] = known
        note(http, result=digest(path))
        saved = store.save_label(image, str(path), tag, info)
    if tag == FINAL:
        app.on_save_label(image, saved, user_name(info.get("client_id"), http))
    return {"image": image, "label": saved}


@router.get("/datastore/", dependencies=USER)
def datastore(output: Literal["stats", "all", "train"] = "stats") -> Any:
    """Counts, everything that is known of images and labels, or pairs of image and final label by id."""
    store = app_instance().datastore()
    if output == "all":
        return store.json()
    if output == "train":
        return [
            {"image": i, "label": store.get_label_by_image_id(i, "final")} for i in store.get_labeled_images()
        ]
    return store.status()


@router.post("/train/{model}", dependencies=ADMIN)
def train(
    model: str, params: dict[str, Any] | None = None, run_sync: bool = False, enqueue: bool = False
) -> dict[str, Any]:
    """Train a model on the submitted labels, after the trainings that are waiting if `enqueue`.

    MONAI Label's names of options are taken too; `warnings` in the answer names those that are not known.
    """
    trainer = app_instance().trainer(model)
    options, warnings = own_names(params or {}, trainer.config())
    checked = trainer.check(options)
    with _asking_for_training:
        waiting = [t["request"]["model"] for t in tasks("train") if t["status"] in ("SUBMITTED", "RUNNING")]
        if waiting and not enqueue:
            raise BadRequest(
                f"{waiting[0]} is being trained. Wait for it, stop it, or ask again with enqueue=true.", 429
            )
        if model not in waiting:
            trainer.announce()
        told, _ = AsyncTask.run("train", {"model": model, **checked}, force_sync=run_sync, enqueue=True)
    return {**_task(told), "warnings": warnings}


@router.post("/train/", dependencies=ADMIN, include_in_schema=False)
def train_all(params: dict[str, dict[str, Any]] | None = None, run_sync: bool = False) -> dict[str, Any]:
    """Train the models that `params` names, one after the other; OHIF asks this way."""
    return {model: {"result": train(model, own, run_sync, True)} for model, own in (params or {}).items()}


@router.delete("/train/", dependencies=ADMIN)
def stop_training() -> dict[str, Any] | None:
    """Stop the running training; what it has learnt by its last step is kept, and goes on when it is started
    again."""
    running = next(iter(processes("train").items()), None)
    if running is None:
        return None
    task = next(t for t in tasks("train") if t["id"] == running[0])
    app_instance().trainer(task["request"]["model"]).stop()
    with contextlib.suppress(subprocess.TimeoutExpired):
        running[1].wait(_STOPS_WITHIN)
        task["status"] = "STOPPED"
        return _task(task)
    return _task(AsyncTask.stop("train") or task)


def _task(task: dict[str, Any]) -> dict[str, Any]:
    """What a client learns of a background task: nothing about the server's folders."""
    # 3D Slicer takes the last of the details without looking whether there is one
    return {
        key: list(value) or [task["status"]] if key == "details" else value for key, value in task.items()
    }


def receive_file(file: UploadFile, folder: Path, name: str | None = None) -> Path:
    """Write an upload into a folder of this request under a name of ours; it must hold its voxels itself."""
    path = folder / (name or f"image{check_upload(file.filename)}")
    with path.open("wb") as target:
        shutil.copyfileobj(file.file, target, 2**20)
    check_alone(path)
    return path
