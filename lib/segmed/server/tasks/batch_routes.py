"""A model over many images, in the background: MONAI Label begins a process for any name, and leaves it
behind."""

from __future__ import annotations

import contextlib
from typing import Any

import psutil
from fastapi import APIRouter
from monailabel.endpoints import batch_infer
from monailabel.interfaces.tasks.batch_infer import BatchInferImageType
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.async_tasks.task import AsyncTask
from monailabel.utils.async_tasks.utils import processes

from segmed.server.http.routes import ADMIN

router = APIRouter(tags=["Infer"])
_USUAL = {
    "device": "cuda",
    "multi_gpu": True,
    "gpus": "all",
    "logging": "WARNING",
    "save_label": True,
    "label_tag": "original",
    "max_workers": 1,
    "max_batch_size": 0,
}


@router.post("/batch/infer/{model}", dependencies=ADMIN)
def infer_many(
    model: str,
    images: BatchInferImageType = BatchInferImageType.IMAGES_ALL,
    params: dict[str, Any] | None = None,
    run_sync: bool = False,
) -> Any:
    """Run a model on images of the studies, in a process of its own; its labels have the tag `original`.

    Raises:
        BadRequest: (404) there is no such model.
    """
    app_instance().task(model)
    return batch_infer.run(model, images, {**_USUAL, **(params or {})}, run_sync)


@router.delete("/batch/infer", dependencies=ADMIN)
def stop() -> Any:
    """Stop it; nothing happens if there is none."""
    with contextlib.suppress(psutil.Error):  # it ends at this moment
        return AsyncTask.stop("batch_infer")
    return None


def close() -> None:
    """Stop it with the server, which would wait for its end."""
    if processes("batch_infer"):
        stop()
