"""3D Slicer's scribbles: strokes in two segments of a sent label map, with a mask prompt."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from scipy import ndimage

from segmed.imaging.grid import image_grid
from segmed.imaging.labels.masks import stack_slices
from segmed.imaging.labels.provenance import array_checksum
from segmed.imaging.prompts import parse_prompt
from segmed.imaging.scribbles import Scribbles
from segmed.server.decoding import decoder
from segmed.server.http.errors import BadRequest
from segmed.server.http.requests import InferParams
from segmed.server.tasks.answers import prompt_of
from segmed.server.tasks.infer import PromptInferTask, common_options, write_result

FOREGROUND, BACKGROUND = "foreground_scribbles", "background_scribbles"


def scribbles_name(model: str) -> str:
    """The name of the scribbles model of a prompt model."""
    return f"{model.removesuffix('_3d')}_scribbles{'_3d' if model.endswith('_3d') else ''}"


class ScribblesInferTask(InferTask):
    """A model for scribbles, shown by 3D Slicer under scribbles.

    Args:
        prompts: Model that takes the strokes and the mask.
    """

    def __init__(self, prompts: PromptInferTask) -> None:
        super().__init__(
            type=InferType.SCRIBBLES,
            labels=list(prompts.engine.settings.labels),
            dimension=3,
            description=f"{prompts.description}, by scribbles",
            config=common_options(prompts.engine),
        )
        self.prompts = prompts

    def is_valid(self) -> bool:
        return True

    def __call__(self, request: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """Segment one object, or correct it where it was segmented before.

        Args:
            request: `image`, a path that the server chose; `label_path`, a label map with the scribbles;
                `params`, an `InferParams` whose `label_info` names its values and `selected_label_name` the
                object.

        Returns:
            Path of a mask on the full grid of the image (uint8, object = 1), and the parameters for the
            viewer. Except for models of volumes, the object is unchanged on slices without scribbles.

        Raises:
            BadRequest: There is no label map.
            ValueError: The image, label map, scribbles or weights are unusable.
            FileNotFoundError: The image or weights are missing.
        """
        params: InferParams = request["params"]
        if not request.get("label_path"):
            raise BadRequest("There are no scribbles. Send the label map that holds them as the file label.")
        start = time.perf_counter()
        engine = self.prompts.engine
        picture = engine.picture(request["image"], params.window)
        grid = image_grid(request["image"], picture.shape, picture.affine)
        labels = decoder().segments(request["label_path"], grid).flat()
        scribbles = Scribbles.from_labels(labels, params.value_of(FOREGROUND), params.value_of(BACKGROUND))
        name = params.selected_label_name or params.label or engine.settings.labels[0]
        value = params.value_of(name)
        present = labels == value if value else np.zeros(picture.shape, bool)
        previous = {int(k): present[:, :, k].T for k in np.flatnonzero(present.any(axis=(0, 1)))}
        strokes = scribbles.maps()
        if self.prompts.corrects_masks(params.device):
            before = {k: _under_strokes(m, strokes[k] != 0) for k, m in previous.items() if k in strokes}
            # A volume is corrected as a whole, a slice by itself.
            before = previous | before if self.prompts.volume else before
        else:
            before = scribbles.mask_prompts(previous)
        mask = stack_slices(before, picture.shape) > 0
        if not scribbles.foreground and not params.roi and not mask.any():
            raise BadRequest(
                "There are no scribbles on the object. Paint some with the foreground brush, then update."
            )
        prompt, warnings = parse_prompt(
            picture.shape, params.roi, mask=mask if mask.any() else None, scribbles=strokes
        )
        opened = time.perf_counter()
        masks, notes = self.prompts.segment(picture, prompt, params.device)
        segmented = time.perf_counter()
        path = write_result(
            stack_slices(scribbles.correct(previous | masks), picture.shape), [name], picture, request
        )
        return path, {
            "label_names": {name: 1},
            "model": self.prompts.method,
            "window": picture.window,
            "provenance": self.prompts.provenance(
                request["image"],
                picture,
                prompt_of(params, mask) | {"scribbles": {"SHA256": array_checksum(labels)}},
                params.device,
                {},
            ).to_json(),
            "warnings": warnings + notes,
            "latencies": {
                "open": round(opened - start, 4),
                "segment": round(segmented - opened, 4),
                "write": round(time.perf_counter() - segmented, 4),
            },
        }


def _under_strokes(mask: np.ndarray, strokes: np.ndarray) -> np.ndarray:
    """A mask (H, W) as it probably was before strokes took its pixels: as the nearest pixels beside them.

    The strokes of the label map have replaced the object's pixels under them.
    """
    nearest = ndimage.distance_transform_edt(strokes, return_distances=False, return_indices=True)
    return np.asarray(mask[tuple(nearest)])
