"""The prompt InferTask: any promptable method, on the prompted slice or through the volume."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from typing import Any

from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from segmed.imaging.intensity import WINDOWS
from segmed.imaging.masks import stack_slices, write_mask, write_nrrd_slices
from segmed.imaging.prompts import parse_prompt
from segmed.methods.predictor import is_blank
from segmed.methods.segmenter import Method
from segmed.server.engine import Engine
from segmed.server.requests import InferParams

logger = logging.getLogger(__name__)


class PromptInferTask(InferTask):
    """Shown by 3D Slicer as SmartEdit and by OHIF as Point Prompts.

    Args:
        method: a promptable one.
        volume: propagate through slices (`<name>_3d`) or fill the prompted slices only.
        engine: models and caches.
    """

    def __init__(self, method: Method, volume: bool, engine: Engine) -> None:
        where = "through the volume" if volume else "on the prompted slice"
        super().__init__(
            type=InferType.DEEPGROW,
            labels=list(engine.settings.labels),
            dimension=3 if volume else 2,
            description=f"{method.title}, {where}",
            config={
                **common_options(engine),
                **({"output": ["mask", "uncertainty"]} if method.gives_uncertainty and not volume else {}),
            },
        )
        self.method = method.name
        self.volume = volume
        self.engine = engine

    def is_valid(self) -> bool:
        return True

    def __call__(self, request: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """Segment one object.

        Args:
            request: `image` is a path that the server chose, `params` an `InferParams`.

        Returns:
            Path of a mask on the full grid of the image (uint8, object = 1), and what to tell the viewer.

        Raises:
            ValueError: unusable image, prompt or weights.
            FileNotFoundError: image or weights are not there.
        """
        params: InferParams = request["params"]
        start = time.perf_counter()
        picture = self.engine.pictures.get(request["image"], params.window or self.engine.settings.window)
        prompt, warnings = parse_prompt(picture.shape, params.roi, params.foreground, params.background)
        opened = time.perf_counter()
        predictor = self.engine.predictor(self.method, params.device)
        if predictor.warning:
            warnings.append(predictor.warning)
        if params.output == "uncertainty":
            masks = predictor.uncertainty(picture, prompt)
        else:
            segment = predictor.segment_volume if self.volume else predictor.segment_slices
            masks = segment(picture, prompt)
        segmented = time.perf_counter()
        if blank := [k for k in masks if is_blank(picture, k)]:
            warnings.append(f"Slice {blank[0]} is blank (all of its voxels are alike or no numbers): nothing is there.")
        if not any(mask.any() for mask in masks.values()):
            warnings.append("Nothing was found there. Draw the box closer around the object or click into it.")
        path = result_file(params)
        if params.result_extension == ".nrrd" and not params.result_compress:
            write_nrrd_slices(masks, picture.shape, picture.affine, path)
        else:
            write_mask(stack_slices(masks, picture.shape), picture.affine, path, compress=params.result_compress)
        label = params.label or self.engine.settings.labels[0]
        return path, {
            "label_names": {label: 1},
            "model": self.method,
            "output": params.output,
            "window": picture.window,
            "warnings": warnings,
            "latencies": {
                "open": round(opened - start, 4),
                "segment": round(segmented - opened, 4),
                "write": round(time.perf_counter() - segmented, 4),
            },
        }


def common_options(engine: Engine) -> dict[str, list[str]]:
    """What every model lets the user choose, the default first."""
    window = engine.settings.window
    return {"device": engine.devices(), "window": [window, *(w for w in WINDOWS if w != window)]}


def result_file(params: InferParams) -> str:
    """An empty file in the server's own folder; whoever sends it removes it."""
    handle, path = tempfile.mkstemp(suffix=params.result_extension, prefix="mask-")
    os.close(handle)
    return path
