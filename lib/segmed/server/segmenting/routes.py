"""Endpoints that segment: prompts, automatic models, stopping, interpolation between slices, surfaces."""

from __future__ import annotations

from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import Response
from monailabel.interfaces.utils.app import app_instance

from segmed.imaging.labels.surface import surface_mesh, to_gifti
from segmed.server.access.audit import digest, note
from segmed.server.http.sentence_route import SentenceRoute
from segmed.server.segmenting.interpolating import InterpolateBody, interpolate
from segmed.server.segmenting.jobs import Job
from segmed.server.segmenting.prompting import run_automatic, run_prompt
from segmed.server.segmenting.stream import answered
from segmed.server.tasks.automatic import AutomaticInferTask
from segmed.server.tasks.infer import PromptInferTask
from segmed.server.workspace.bodies import Client, PromptBody, SegmentBody
from segmed.server.workspace.routes import Named, Who, actions_of, key_of

router = APIRouter(prefix="/api", route_class=SentenceRoute)


@router.post("/images/{image}/prompt")
def prompt(image: str, body: PromptBody, who: Who, http: Request) -> Any:
    """Add to the prompt of the open object, and segment it again.

    With `Accept: application/x-ndjson`, lines with the progress and partial masks come before the answer.
    """

    def run(job: Job) -> dict[str, Any]:
        with actions_of(image, body.client, who, http).open(belief=body) as actions:
            return run_prompt(actions, body, job)

    note(http, prompt=digest(body.model_dump_json().encode()), **_model_facts(body))
    return answered(http, key_of(image, body.client, who, http), run)


@router.post("/images/{image}/segment")
def segment(image: str, body: SegmentBody, who: Who, http: Request) -> Any:
    """Label the volume by an automatic model.

    With `Accept: application/x-ndjson`, lines with the progress and partial masks come before the answer.
    """

    def run(job: Job) -> dict[str, Any]:
        with actions_of(image, body.client, who, http).open(belief=body) as actions:
            return run_automatic(actions, body, job)

    note(http, **_model_facts(body))
    return answered(http, key_of(image, body.client, who, http), run)


class StopBody(Client):
    """Whether what the request has found until now is kept, as a step that can be undone, or dropped."""

    keep: bool = True


@router.post("/images/{image}/stop")
def stop(image: str, body: StopBody, who: Who, http: Request) -> dict[str, Any]:
    """Stop the user's requests on this image; each ends within a slice, and its answer tells what is left."""
    return {"stopped": app_instance().jobs.stop(key_of(image, body.client, who, http), body.keep)}


@router.post("/images/{image}/interpolate")
def interpolate_label(image: str, body: InterpolateBody, who: Who, http: Request) -> dict[str, Any]:
    """Fill the slices between those that show a label."""
    with actions_of(image, body.client, who, http).open(belief=body) as actions:
        return interpolate(actions, body)


@router.get("/images/{image}/surface.gii")
def surface(image: str, name: str, who: Who, http: Request, client: Named = "") -> Response:
    """The surface of a label in RAS mm, as GIFTI."""
    with actions_of(image, client, who, http).open() as actions:
        work, affine = actions.work, actions.picture.affine
        value = work.value_of(name, keep=False)
        mask = np.zeros(work.shape, bool, order="F")
        for k in work.filled():
            mask[:, :, k] = (work.slice(k) == value).T
    content = to_gifti(*surface_mesh(mask, affine))
    return Response(content, media_type="application/octet-stream", headers={"Cache-Control": "no-store"})


def _model_facts(body: PromptBody | SegmentBody) -> dict[str, str]:
    """Name and version of the model, for the audit log; noted before a streamed answer begins."""
    task = app_instance().task(body.model)
    if not isinstance(task, AutomaticInferTask | PromptInferTask):
        return {"model": body.model}
    version = task.engine.predictor(task.method, body.device).segmenter.version
    return {"model": body.model, "version": version}
