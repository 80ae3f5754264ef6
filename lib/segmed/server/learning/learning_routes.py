"""Endpoints of active learning: next sample, skip, review of held labels, scoring, and the state."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

from fastapi import APIRouter, Request
from monailabel.interfaces.utils.app import app_instance
from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from segmed.active.store.labels import LabelState
from segmed.server.http.requests import check_id
from segmed.server.http.routes import ADMIN, ANNOTATOR, REVIEWER, USER
from segmed.server.learning.learning import ActiveLearning
from segmed.server.learning.strategies import user_name

router = APIRouter()
_WHO = AliasChoices("client_id", "client")


class Wish(BaseModel):
    """A request for the next images to label.

    Attributes:
        strategy: Name of the strategy; "" for that of the settings.
        count: Number of images.
        keep: Whether images that the user holds already count among them; None means yes if several are
            requested.
        client_id: Name that the client gives.
        open: Image that the client shows, which is not proposed; "" if there is none.
    """

    model_config = ConfigDict(extra="ignore")

    open: str = Field(default="", max_length=256)
    strategy: str = ""
    count: Any = 1
    keep: Any = None
    client_id: str = Field(default="", max_length=256, validation_alias=_WHO)


class ImageChoice(BaseModel):
    """An image that a user does not want.

    Attributes:
        image: Identifier of the image.
        client_id: Name that the client gives.
    """

    model_config = ConfigDict(extra="ignore")

    image: str
    client_id: str = Field(default="", max_length=256, validation_alias=_WHO)


class Review(BaseModel):
    """A reviewer's decision on a label.

    Attributes:
        keep: Whether to train on the label.
        client_id: Name that the client gives.
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
    """Submissions, all or in one state; `held` ones differ strongly from the model and wait for a review."""
    return [asdict(record) for record in _learning().log.labels(state)]


@router.post("/api/active/labels/{label}", dependencies=REVIEWER)
def review(label: int, choice: Review, http: Request) -> dict[str, Any]:
    """Keep a label, so that models are trained on it, or drop it; its file is unchanged either way."""
    return asdict(_learning().review(label, choice.keep, user_name(choice.client_id, http)))


@router.get("/api/active/cases", dependencies=ANNOTATOR)
def cases() -> list[dict[str, Any]]:
    """Work on images, with users, times and numbers of prompts."""
    return [asdict(case) for case in _learning().log.cases()]


@router.get("/api/active/retrainings", dependencies=ANNOTATOR)
def retrainings() -> list[dict[str, Any]]:
    """All retrainings with their reasons and outcomes, oldest first."""
    return [
        {key: value for key, value in asdict(job).items() if key != "owner"}
        for job in _learning().retrainer.retraining.jobs()
    ]


@router.post("/api/active/next", dependencies=USER)
def propose(wish: Wish, http: Request) -> dict[str, Any]:
    """The images to annotate next, reserved for the user, under `samples`, with the facts of the first."""
    return _next(wish, http)


@router.post("/api/active/skip", dependencies=USER)
def skip(choice: ImageChoice, http: Request) -> dict[str, str]:
    """Release an image; it is proposed to this user again when no others are left."""
    return _skip(choice, http, forever=False)


@router.post("/api/active/not-this-one", dependencies=USER)
def not_this_one(choice: ImageChoice, http: Request) -> dict[str, str]:
    """Release an image; it is never proposed to this user again."""
    return _skip(choice, http, forever=True)


@router.post("/activelearning/{strategy}", dependencies=USER)
def next_sample(strategy: str, http: Request, config: dict[str, Any] | None = None) -> dict[str, Any]:
    """The image to annotate next, as 3D Slicer and OHIF request it; further keys as in `/api/active/next`."""
    return _next(
        Wish.model_validate(
            {k: v for k, v in (config or {}).items() if v is not None} | {"strategy": strategy}
        ),
        http,
    )


@router.get("/scoring/", dependencies=USER)
def scoring_status() -> dict[str, Any]:
    """The progress of scoring."""
    return _learning().scorer.status()


@router.post("/scoring/{method}", dependencies=ANNOTATOR)
def score(method: Literal["images", "dice"]) -> dict[str, Any]:
    """`images` resumes scoring in the background; `dice` compares original with final labels."""
    answer: dict[str, Any] = app_instance().scoring({"method": method})
    return answer


@router.delete("/scoring/", dependencies=ANNOTATOR)
def stop_scoring() -> dict[str, Any]:
    """Stop scoring in the background until it is requested again or the server is restarted."""
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
    facts: dict[str, Any] = dict(app.datastore().get_image_info(sample["id"])) if sample else {}
    return facts | sample


def _skip(choice: ImageChoice, http: Request, forever: bool) -> dict[str, str]:
    _learning().skip(check_id(choice.image), user_name(choice.client_id, http), forever)
    return {"image": choice.image, "again": "never" if forever else "when nothing else is left"}
