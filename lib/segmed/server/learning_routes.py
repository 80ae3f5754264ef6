"""Endpoints of active learning: next sample, skip, review of labels that are held, scoring, and the state of it all."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

from fastapi import APIRouter, Request
from monailabel.interfaces.utils.app import app_instance
from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from segmed.active.labels import LabelState
from segmed.server.learning import ActiveLearning
from segmed.server.requests import check_id
from segmed.server.routes import ADMIN, ANNOTATOR, REVIEWER, USER
from segmed.server.strategies import user_name

router = APIRouter()
_WHO = AliasChoices("client_id", "client")


class Wish(BaseModel):
    """What a user wants to label next.

    Attributes:
        strategy: name; "" for that of the settings.
        count: of images.
        keep: whether images that the user has already count among them; None for yes where several are wanted.
        client_id: who.
    """

    model_config = ConfigDict(extra="ignore")

    strategy: str = ""
    count: Any = 1
    keep: Any = None
    client_id: str = Field(default="", max_length=256, validation_alias=_WHO)


class ImageChoice(BaseModel):
    """Which image a user does not want.

    Attributes:
        image: id.
        client_id: who.
    """

    model_config = ConfigDict(extra="ignore")

    image: str
    client_id: str = Field(default="", max_length=256, validation_alias=_WHO)


class Review(BaseModel):
    """What a reviewer says of a label.

    Attributes:
        keep: whether it is learnt from.
        client_id: who says so.
    """

    model_config = ConfigDict(extra="ignore")

    keep: bool
    client_id: str = Field(default="", max_length=256, validation_alias=_WHO)


@router.get("/api/active/state", dependencies=ADMIN)
def state() -> dict[str, Any]:
    """Images, labels, work, scores, the retraining and drift in numbers."""
    return _learning().status()


@router.get("/api/active/labels", dependencies=ANNOTATOR)
def labels(state: LabelState | None = None) -> list[dict[str, Any]]:
    """Submissions, all or those of one state; `held` ones differ wildly from the model and wait for a review."""
    return [asdict(record) for record in _learning().log.labels(state)]


@router.post("/api/active/labels/{label}", dependencies=REVIEWER)
def review(label: int, choice: Review, http: Request) -> dict[str, Any]:
    """Keep a label, so that it is learnt from, or turn it down; its file is left alone either way."""
    return asdict(_learning().review(label, choice.keep, user_name(choice.client_id, http)))


@router.get("/api/active/cases", dependencies=ANNOTATOR)
def cases() -> list[dict[str, Any]]:
    """Work on images: who, how long, with how many prompts."""
    return [asdict(case) for case in _learning().log.cases()]


@router.get("/api/active/retrainings", dependencies=ANNOTATOR)
def retrainings() -> list[dict[str, Any]]:
    """All retrainings, oldest first: why they were begun and what came of them."""
    return [
        {key: value for key, value in asdict(job).items() if key != "owner"}
        for job in _learning().retrainer.retraining.jobs()
    ]


@router.post("/api/active/next", dependencies=USER)
def propose(wish: Wish, http: Request) -> dict[str, Any]:
    """The images to annotate next, reserved for the user, under `samples`; the first one's facts beside them."""
    return _next(wish, http)


@router.post("/api/active/skip", dependencies=USER)
def skip(choice: ImageChoice, http: Request) -> dict[str, str]:
    """Give an image back; it is proposed to this user again when nothing else is left."""
    return _skip(choice, http, forever=False)


@router.post("/api/active/not-this-one", dependencies=USER)
def not_this_one(choice: ImageChoice, http: Request) -> dict[str, str]:
    """Give an image back; it is never proposed to this user again."""
    return _skip(choice, http, forever=True)


@router.post("/activelearning/{strategy}", dependencies=USER)
def next_sample(strategy: str, http: Request, config: dict[str, Any] | None = None) -> dict[str, Any]:
    """The image to annotate next, as 3D Slicer and OHIF ask for it; more keys as in `/api/active/next`."""
    return _next(
        Wish.model_validate({k: v for k, v in (config or {}).items() if v is not None} | {"strategy": strategy}), http
    )


@router.get("/scoring/", dependencies=USER)
def scoring_status() -> dict[str, Any]:
    """What is scored and what is left."""
    return _learning().scorer.status()


@router.post("/scoring/{method}", dependencies=ANNOTATOR)
def score(method: Literal["images", "dice"]) -> dict[str, Any]:
    """`images` has scoring go on in the background; `dice` compares original with final labels."""
    told: dict[str, Any] = app_instance().scoring({"method": method})
    return told


@router.delete("/scoring/", dependencies=ANNOTATOR)
def stop_scoring() -> dict[str, Any]:
    """Stop scoring in the background until it is asked for again, or the server starts anew."""
    scorer = _learning().scorer
    scorer.pause()
    return scorer.status()


def _learning() -> ActiveLearning:
    learning: ActiveLearning = app_instance().learning
    return learning


def _next(wish: Wish, http: Request) -> dict[str, Any]:
    app = app_instance()
    wanted = wish.model_dump(exclude_none=True) | {
        "strategy": wish.strategy or _learning().settings.strategy,
        "user": user_name(wish.client_id, http),
    }
    sample: dict[str, Any] = app.next_sample(wanted)
    told: dict[str, Any] = dict(app.datastore().get_image_info(sample["id"])) if sample else {}
    return told | sample


def _skip(choice: ImageChoice, http: Request, forever: bool) -> dict[str, str]:
    _learning().skip(check_id(choice.image), user_name(choice.client_id, http), forever)
    return {"image": choice.image, "again": "never" if forever else "when nothing else is left"}
