"""The prompt InferTask: any promptable method, on the prompted slice or through the volume."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from segmed.imaging.formats.seg_nrrd import SEGMENTATION
from segmed.imaging.grid import image_grid
from segmed.imaging.intensity import WINDOWS
from segmed.imaging.labels.masks import stack_slices, write_mask, write_nrrd_slices
from segmed.imaging.labels.provenance import Provenance
from segmed.imaging.labels.writing import name_values, write_labels
from segmed.imaging.picture import Picture
from segmed.imaging.prompts import Prompt, parse_prompt
from segmed.inference.predictor import is_blank
from segmed.inference.progress import Masks, Progress
from segmed.inference.refinement.refinement import REFINEMENTS, RefinementName
from segmed.methods.base.method import Method
from segmed.server.datastores.label_check import prompt_mask
from segmed.server.engine import Engine
from segmed.server.http.requests import InferParams
from segmed.server.tasks.answers import prompt_of, provenance_of

logger = logging.getLogger(__name__)


class PromptInferTask(InferTask):
    """A promptable model, shown by 3D Slicer as SmartEdit and by OHIF as Point Prompts.

    Args:
        method: Promptable method.
        volume: Whether to propagate through slices (`<name>_3d`) or to segment the prompted slices only.
        engine: Engine with models and caches.
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
                "refinement": list(get_args(RefinementName)),
                **({"output": ["mask", "uncertainty"]} if method.gives_uncertainty and not volume else {}),
            },
        )
        self.method = method.name
        self.model = method.offered_as()[-1 if volume else -2]
        self.volume = volume
        self.engine = engine

    def is_valid(self) -> bool:
        return True

    def __call__(self, request: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """Segment one object.

        Args:
            request: `image`, a path that the server chose; `params`, an `InferParams`; `label_path`, a label
                map whose label becomes a mask prompt.

        Returns:
            Path of a mask on the full grid of the image (uint8, object = 1), and the parameters for the
            viewer.

        Raises:
            ValueError: The image, prompt or weights are unusable.
            FileNotFoundError: The image or weights are missing.
        """
        params: InferParams = request["params"]
        start = time.perf_counter()
        if params.output == "uncertainty" and params.result_extension == SEGMENTATION:
            raise ValueError(
                "An uncertainty map has no segments. Request the result_extension .nrrd or .nii.gz."
            )
        picture = self.engine.picture(request["image"], params.window)
        mask = None
        if request.get("label_path"):
            grid = image_grid(request["image"], picture.shape, picture.affine)
            name = params.selected_label_name or params.label
            mask = prompt_mask(Path(request["label_path"]), grid, name, {"label_info": params.label_info})
        prompt, warnings = parse_prompt(
            picture.shape,
            params.roi,
            params.foreground,
            params.background,
            mask if mask is not None and mask.any() else None,
        )
        opened = time.perf_counter()
        clean = self.engine.denoised(picture, params.denoise)
        masks, notes = self.segment(
            clean, prompt, params.device, params.output == "uncertainty", params.refinement
        )
        warnings += notes
        segmented = time.perf_counter()
        label = params.label or self.engine.settings.labels[0]
        if params.result_extension == ".nrrd" and not params.result_compress:
            path = result_file(params)
            write_nrrd_slices(masks, picture.shape, picture.affine, path)
        else:
            path = write_result(stack_slices(masks, picture.shape), [label], picture, request)
        return path, {
            "label_names": {label: 1},
            "model": self.method,
            "output": params.output,
            "window": picture.window,
            "provenance": self.provenance(
                request["image"],
                picture,
                prompt_of(params, mask),
                params.device,
                {
                    "refinement": params.refinement,
                    "denoise": params.denoise,
                    "output": params.output,
                },
            ).to_json(),
            "warnings": warnings,
            "latencies": {
                "open": round(opened - start, 4),
                "segment": round(segmented - opened, 4),
                "write": round(time.perf_counter() - segmented, 4),
            },
        }

    def provenance(
        self,
        image: str | Path,
        picture: Picture,
        prompt: Mapping[str, Any],
        device: str | None,
        options: Mapping[str, Any],
    ) -> Provenance:
        """How a mask of this model was made; see `provenance_of`."""
        predictor = self.engine.predictor(self.method, device)
        return provenance_of(self.model, predictor, image, picture, prompt, options)

    def corrects_masks(self, device: str | None = None) -> bool:
        """Whether corrections should include the previous mask; see `Segmenter.corrects_masks`."""
        return self.engine.predictor(self.method, device).segmenter.corrects_masks

    def segment(
        self,
        picture: Picture,
        prompt: Prompt,
        device: str | None = None,
        uncertainty: bool = False,
        refinement: str = "nothing",
        progress: Progress | None = None,
    ) -> tuple[Masks, list[str]]:
        """Run the model.

        Args:
            picture: Image to segment.
            prompt: Prompt for one object.
            device: Device, one of those in `config`; None for the default.
            uncertainty: Whether to return the uncertainty map in place of the mask.
            refinement: Refinement of each mask, one of those in `config`.
            progress: Function that is told of slices and masks, and may stop the model; see `Progress`.

        Returns:
            Masks (H, W) by slice, and messages for the user.

        Raises:
            ValueError: The weights or device are unusable.
            FileNotFoundError: The weights are missing.
        """
        predictor = self.engine.predictor(self.method, device)
        if uncertainty:
            masks = predictor.uncertainty(picture, prompt)
        else:
            segment = predictor.segment_volume if self.volume else predictor.segment_slices
            masks = segment(picture, prompt, progress, REFINEMENTS.get(refinement))
        notes = [predictor.warning] if predictor.warning else []  # which may have come just now
        if blank := [k for k in masks if is_blank(picture, k)]:
            notes.append(
                f"Slice {blank[0]} is blank (all of its voxels are equal or not numbers): nothing is there."
            )
        if not any(mask.any() for mask in masks.values()):
            notes.append("Nothing was found there. Draw the box closer around the object or click into it.")
        return masks, notes


def common_options(engine: Engine) -> dict[str, list[str]]:
    """The options that every model offers to the user, the default first."""
    window = engine.settings.window
    return {
        "device": engine.devices(),
        "window": [window, *(w for w in WINDOWS if w != window)],
        "denoise": ["nothing", *engine.denoisers],
    }


def write_result(
    labels: np.ndarray, names: Sequence[str], picture: Picture, request: Mapping[str, Any]
) -> str:
    """Write a label map (I, J, K) in the requested format; a `.seg.nrrd` holds the names of 1, 2, … too."""
    params: InferParams = request["params"]
    path = result_file(params)
    if params.result_extension == SEGMENTATION:
        write_labels(name_values(labels, names), picture.affine, path, like=request["image"])
    else:
        write_mask(labels, picture.affine, path, params.result_compress, like=request["image"])
    return path


def result_file(params: InferParams) -> str:
    """An empty file in the server's own folder, which the sender removes."""
    handle, path = tempfile.mkstemp(suffix=params.result_extension, prefix="mask-")
    os.close(handle)
    return path
