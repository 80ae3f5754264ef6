"""Endpoints of active learning: next sample, skip, review of labels that were held, scoring."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

from fastapi import APIRouter, Request
from monailabel.interfaces.utils.app import app_instance
from pydantic import BaseModel, ConfigDict, Field

from segmed.active.labels import LabelState
from segmed.server.requests import check_id
from segmed.server.routes import ANNOTATOR, USER
from segmed.server.strategies import user_name

router = APIRouter()


class ImageChoice(BaseModel):
    """Which image a user does not want.

    Attributes:
        image: id.
        client_id: who.
    """

    model_config = ConfigDict(extra="ignore")

    image: str
    client_id: str = Field(default="", max_length=256)


class Review(BaseModel):
    """What a reviewer says of a label.

    Attributes:
        keep: whether it is learnt from.
        client_id: who says so.
    """

    model_config = ConfigDict(extra="ignore")

    keep: bool
    client_id: str = Field(default="", max_length=256)


@router.get("/activelearning/", dependencies=USER)
def status() -> dict[str, Any]:
    """How many images are labelled, reserved and scored, what the retraining does, and whether images have drifted."""
    told: dict[str, Any] = app_instance().learning.status()
    return told


@router.get("/activelearning/labels", dependencies=ANNOTATOR)
def labels(state: LabelState | None = None) -> list[dict[str, Any]]:
    """Submissions, all or those of one state; `held` ones differ wildly from the model and wait for a review."""
    return [asdict(record) for record in app_instance().learning.log.labels(state)]


@router.get("/activelearning/cases", dependencies=ANNOTATOR)
def cases() -> list[dict[str, Any]]:
    """Work on images: who, how long, with how many prompts."""
    return [asdict(case) for case in app_instance().learning.log.cases()]


@router.post("/activelearning/labels/{label}", dependencies=ANNOTATOR)
def review(label: int, choice: Review, http: Request) -> dict[str, Any]:
    """Keep a label, so that it is learnt from, or turn it down; its file is left alone either way."""
    learning = app_instance().learning
    record = learning.log.review(label, choice.keep, user_name(choice.client_id, http))
    learning.changed()
    return asdict(record)


@router.post("/activelearning/skip", dependencies=USER)
def skip(choice: ImageChoice, http: Request) -> dict[str, str]:
    """Give an image back; it is proposed to this user again when nothing else is left."""
    return _skip(choice, http, forever=False)


@router.post("/activelearning/not-this-one", dependencies=USER)
def not_this_one(choice: ImageChoice, http: Request) -> dict[str, str]:
    """Give an image back; it is never proposed to this user again."""
    return _skip(choice, http, forever=True)


@router.post("/activelearning/{strategy}", dependencies=USER)
def next_sample(strategy: str, http: Request, config: dict[str, Any] | None = None) -> dict[str, Any]:
    """The image to annotate next, reserved for the user; `count` asks for several, `keep` for those of before."""
    app = app_instance()
    asked: dict[str, Any] = config or {}
    wanted: dict[str, Any] = {key: asked[key] for key in ("count", "keep") if key in asked}
    wanted |= {"strategy": strategy, "user": user_name(asked.get("client_id"), http)}
    sample = app.next_sample(wanted)
    told: dict[str, Any] = dict(app.datastore().get_image_info(sample["id"])) if sample else {}
    return told | sample


@router.get("/scoring/", dependencies=USER)
def scoring_status() -> dict[str, Any]:
    """What is scored and what is left."""
    told: dict[str, Any] = app_instance().learning.scorer.status()
    return told


@router.post("/scoring/{method}", dependencies=ANNOTATOR)
def score(method: Literal["images", "dice"]) -> dict[str, Any]:
    """`images` has scoring go on in the background; `dice` compares original with final labels."""
    told: dict[str, Any] = app_instance().scoring({"method": method})
    return told


@router.delete("/scoring/", dependencies=ANNOTATOR)
def stop_scoring() -> dict[str, Any]:
    """Stop scoring in the background until it is asked for again, or the server starts anew."""
    scorer = app_instance().learning.scorer
    scorer.pause()
    told: dict[str, Any] = scorer.status()
    return told


def _skip(choice: ImageChoice, http: Request, forever: bool) -> dict[str, str]:
    app_instance().learning.skip(check_id(choice.image), user_name(choice.client_id, http), forever)
    return {"image": choice.image, "again": "never" if forever else "when nothing else is left"}
