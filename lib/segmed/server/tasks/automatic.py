"""The automatic InferTask: any method that labels a whole volume without a prompt."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from segmed.imaging.labels.maps import clean_labels
from segmed.imaging.labels.provenance import Provenance
from segmed.imaging.picture import Picture
from segmed.inference.progress import Progress
from segmed.methods.base.method import Method
from segmed.server.engine import Engine
from segmed.server.http.requests import InferParams
from segmed.server.tasks.answers import provenance_of
from segmed.server.tasks.infer import common_options, write_result

_CLEAN = ("nothing", "largest piece", "holes", "largest piece and holes")


class AutomaticInferTask(InferTask):
    """An automatic model, shown by the viewers under automatic segmentation.

    Args:
        method: Automatic method.
        engine: Engine with models and caches.
    """

    def __init__(self, method: Method, engine: Engine) -> None:
        super().__init__(
            type=InferType.SEGMENTATION,
            labels=list(engine.labels(method.name)),
            dimension=3,
            description=f"{method.title.split(':')[0]}: all structures of the volume, without a prompt",
            config={**common_options(engine), "clean": list(_CLEAN)},
        )
        self.method = method.name
        self.model = method.offered_as()[0]
        self.engine = engine

    def is_valid(self) -> bool:
        return True

    def __call__(self, request: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """Label every slice.

        Args:
            request: `image`, a path that the server chose, and `params`, an `InferParams`.

        Returns:
            Path of a label map on the full grid of the image (uint8), and the parameters for the viewer.

        Raises:
            ValueError: The image or weights are unusable.
            FileNotFoundError: The image or weights are missing.
        """
        params: InferParams = request["params"]
        start = time.perf_counter()
        picture = self.engine.picture(request["image"], params.window)
        opened = time.perf_counter()
        clean = self.engine.denoised(picture, params.denoise)
        labels, names, warnings = self.segment(clean, params.device, params.clean)
        segmented = time.perf_counter()
        path = write_result(np.ascontiguousarray(labels), names, picture, request)
        return path, {
            "label_names": {name: value for value, name in enumerate(names, 1)},
            "model": self.method,
            "window": picture.window,
            "provenance": self.provenance(
                request["image"],
                picture,
                params.device,
                {"clean": params.clean, "denoise": params.denoise},
            ).to_json(),
            "warnings": warnings,
            "latencies": {
                "open": round(opened - start, 4),
                "segment": round(segmented - opened, 4),
                "write": round(time.perf_counter() - segmented, 4),
            },
        }

    def provenance(
        self, image: str | Path, picture: Picture, device: str | None, options: Mapping[str, Any]
    ) -> Provenance:
        """How a label map of this model was made; see `provenance_of`."""
        predictor = self.engine.predictor(self.method, device)
        return provenance_of(self.model, predictor, image, picture, {}, options)

    def segment(
        self,
        picture: Picture,
        device: str | None = None,
        clean: str = "nothing",
        progress: Progress | None = None,
    ) -> tuple[np.ndarray, tuple[str, ...], list[str]]:
        """Run the model.

        Args:
            picture: Image to segment.
            device: Device, one of those in `config`; None for the default.
            clean: Clean-up of the label map, one of those in `config`.
            progress: Function that is told of slices and labels, and may stop the model; see `Progress`.

        Returns:
            Label map (I, J, K) uint8, the names of 1, 2, …, and messages for the user.

        Raises:
            ValueError: The weights or device are unusable.
            FileNotFoundError: The weights are missing.
        """
        predictor = self.engine.predictor(self.method, device)
        labels = predictor.segment_classes(picture, progress)
        if clean != "nothing":
            labels = clean_labels(labels, "largest" in clean, "holes" in clean)
        names = predictor.segmenter.labels
        notes = [predictor.warning] if predictor.warning else []
        if missing := [name for value, name in enumerate(names, 1) if not (labels == value).any()]:
            notes.append(f"Not found: {', '.join(missing)}.")
        return labels, names, notes
