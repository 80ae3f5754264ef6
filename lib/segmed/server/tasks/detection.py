"""The detection InferTask: boxes as regions of interest, which 3D Slicer shows and lets the user move."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from segmed.imaging.picture import Picture
from segmed.methods.base.method import Method
from segmed.methods.detector.regions import Region, link
from segmed.server.engine import Engine
from segmed.server.http.requests import InferParams
from segmed.server.tasks.answers import provenance_of
from segmed.server.tasks.infer import common_options, result_file

_SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)


class DetectionInferTask(InferTask):
    """A detector, shown by 3D Slicer under automatic segmentation; the answer is a file of Markups.

    Args:
        method: Method that detects boxes.
        engine: Engine with models and caches.
    """

    def __init__(self, method: Method, engine: Engine) -> None:
        super().__init__(
            type=InferType.DETECTION,
            labels=list(engine.labels(method.name)),
            dimension=3,
            description=f"{method.title.split(':')[0]}: boxes alone",
            config=common_options(engine),
        )
        self.method = method.name
        self.engine = engine

    def is_valid(self) -> bool:
        return True

    def __call__(self, request: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """Detect boxes on every slice.

        Args:
            request: `image`, a path that the server chose, and `params`, an `InferParams`.

        Returns:
            Path of a `.json` file of Markups, and the parameters for the viewer.

        Raises:
            ValueError: The image or weights are unusable.
            FileNotFoundError: The image or weights are missing.
        """
        params: InferParams = request["params"]
        start = time.perf_counter()
        picture = self.engine.picture(request["image"], params.window)
        picture = self.engine.denoised(picture, params.denoise)
        predictor = self.engine.predictor(self.method, params.device)
        regions = link(predictor.boxes(picture))
        names = predictor.segmenter.labels
        path = result_file(params.model_copy(update={"result_extension": ".json"}))
        with open(path, "w", encoding="utf-8") as file:  # noqa: PTH123 - a path that was made for us
            json.dump(markups(regions, names, picture), file)
        warnings = [predictor.warning] if predictor.warning else []
        return path, {
            "label_names": {name: value for value, name in enumerate(names, 1)},
            "model": self.method,
            "window": picture.window,
            "provenance": provenance_of(
                self.method, predictor, request["image"], picture, {}, {"denoise": params.denoise}
            ).to_json(),
            "boxes": len(regions),
            "warnings": warnings if regions else [*warnings, "Nothing was detected."],
            "latencies": {"all": round(time.perf_counter() - start, 4)},
        }


def markups(regions: Sequence[Region], names: Sequence[str], picture: Picture) -> dict[str, Any]:
    """Regions as 3D Slicer's Markups, in LPS mm along the axes of the image."""
    to_lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ picture.affine
    spacing = np.linalg.norm(to_lps[:3, :3], axis=0)
    axes = to_lps[:3, :3] / spacing
    return {
        "@schema": _SCHEMA,
        "markups": [
            {
                "type": "ROI",
                "coordinateSystem": "LPS",
                "coordinateUnits": "mm",
                "roiType": "Box",
                "name": f"{names[region.label - 1]} {region.score:.2f}",
                "center": (to_lps @ np.array([*(region.low + region.high) / 2, 1.0]))[:3].tolist(),
                "orientation": axes.ravel().tolist(),
                "size": ((region.high - region.low + 1) * spacing).tolist(),
            }
            for region in regions
        ],
    }
