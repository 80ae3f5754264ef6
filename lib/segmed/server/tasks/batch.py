"""MONAI Label's batch inference, which goes on when an image fails and needs no GPU."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.batch_infer import BatchInferTask

logger = logging.getLogger(__name__)
Infer = Callable[[dict[str, Any], Datastore], dict[str, Any]]


class BatchInference(BatchInferTask):
    """Runs a model on many images, one after the other.

    MONAI Label's task spreads images over GPUs, of which there may be none, and ends at the first image that
    cannot be segmented.
    """

    def __call__(self, request: dict[str, Any], datastore: Datastore, infer: Infer) -> dict[str, Any]:
        """Run the model named in the request.

        Args:
            request: `model`, `images` and the options of MONAI Label; options of prompts, such as `roi`,
                apply to every image.
            datastore: Datastore with the images, which also gets the labels.
            infer: Function that runs the model on one image.

        Returns:
            The answer for each image by its name; {"error": message} for images that could not be segmented.
        """
        if not torch.cuda.is_available():
            request = {**request, "multi_gpu": False, "device": "cpu"}

        def infer_one(one: dict[str, Any], where: Datastore) -> dict[str, Any]:
            try:
                return infer(one, where)
            except Exception as error:  # the other images are segmented all the same
                logger.warning("An image could not be segmented: %s", error)
                return {"error": str(error) or type(error).__name__}

        results: dict[str, Any] = super().__call__(request, datastore, infer_one)
        return results
