"""Makes a mask again from its record: the same model, weights, window, prompt and options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import segmed
from segmed.imaging.labels.maps import clean_labels
from segmed.imaging.labels.masks import stack_slices
from segmed.imaging.labels.provenance import Provenance, checksum_of
from segmed.imaging.picture import Picture, open_picture
from segmed.imaging.prompts import Prompt, parse_prompt
from segmed.registry.predictors import LoadedModel, open_model

if TYPE_CHECKING:
    from segmed.inference.predictor import Predictor

_DRAWN = ("mask", "scribbles", "box_file", "axis")  # recorded by checksums, or in another plane
_UNREPEATABLE = ("output", "stopped")
_NUMBERED = 6  # numbers of a box


@dataclass(frozen=True)
class Reproduction:
    """A mask that was made again.

    Attributes:
        labels: Label map (I, J, K) uint8.
        names: Names of 1, 2, …; empty where the record has none.
        picture: The image.
        warnings: Why the mask may differ from the recorded one.
    """

    labels: np.ndarray
    names: tuple[str, ...]
    picture: Picture
    warnings: tuple[str, ...]


def reproduce(record: Provenance, image: Path, registry: Path, backbone: str = "") -> Reproduction:
    """Make a mask again.

    Args:
        record: Record of the mask.
        image: Its image.
        registry: Folder of trained models.
        backbone: SAM weights, where they were given for the mask.

    Raises:
        ValueError: The image or the weights are others than those of the record, or the prompt was drawn, so
            that the record has only its checksum.
        FileNotFoundError: The image, the version or weights are not there.
    """
    from segmed.inference.refinement.refinement import REFINEMENTS

    options = dict(record.options)
    _check(record, image)
    picture = _denoised(open_picture(image, record.window), str(options.get("denoise", "")))
    device, precision = str(options.get("device", "")), str(options.get("precision", "auto"))
    loaded = open_model(record.model, backbone, device, precision, registry, record.version, False)
    if loaded.weights != record.weights:
        raise ValueError(
            f"The weights of {record.model} {record.version} are {loaded.weights[:60]}, those of the record "
            f"{record.weights[:60]}. Give the folder of models, or the backbone, that the mask was made with."
        )
    predictor = loaded.predictor
    predictor.batch = int(options.get("batch", predictor.batch))
    predictor.loose_parts = bool(options.get("loose_parts", False))
    if loaded.automatic:
        labels = predictor.segment_classes(picture)
        if clean := str(options.get("clean", "")):
            labels = clean_labels(labels, "largest" in clean, "holes" in clean)
        names: tuple[str, ...] = predictor.segmenter.labels
    else:
        prompts, values, names = _prompts(record.prompt, picture.shape)
        refinement = REFINEMENTS.get(str(options.get("refinement", "")))
        masks = _segmented(predictor, loaded, record.model, picture, prompts, refinement)
        labels = np.zeros(picture.shape, np.uint8)
        for value, mask in zip(values, masks, strict=True):
            labels[(stack_slices(mask, picture.shape) > 0) & (labels == 0)] = value
    return Reproduction(labels, names, picture, _warnings(record))


def _check(record: Provenance, image: Path) -> None:
    if (found := checksum_of(image)) != record.image:
        raise ValueError(
            f"{image.name} is another image than that of the record: its SHA-256 is {found[:16]}…, not "
            f"{record.image[:16]}…. Give the image that the mask belongs to."
        )
    if drawn := [name for name in _DRAWN if record.prompt.get(name)]:
        raise ValueError(
            f"The prompt had parts of which the record has only the checksum ({', '.join(drawn)}). A mask "
            "can be made again from boxes and clicks on stored slices."
        )
    if odd := [name for name in _UNREPEATABLE if record.options.get(name)]:
        raise ValueError(
            f"The answer was {', '.join(odd)}: it is not the mask that the model finds by itself."
        )


def _denoised(picture: Picture, name: str) -> Picture:
    from segmed.denoising.dncnn import load_dncnn
    from segmed.denoising.pictures import gaussian

    if not name:
        return picture
    if name != "gaussian" and not Path(name).is_file():
        raise ValueError(f"The image was denoised by {name!r}, which is not here. Give a path to it.")
    clean = gaussian() if name == "gaussian" else load_dncnn(Path(name))
    return clean(picture)


def _segmented(
    predictor: Predictor,
    loaded: LoadedModel,
    model: str,
    picture: Picture,
    prompts: Sequence[Prompt],
    refinement: Any,
) -> list[Mapping[int, np.ndarray]]:
    if model.endswith("_3d"):
        return list(predictor.segment_objects(picture, list(prompts), None, refinement))
    return [predictor.segment_slices(picture, prompt, None, refinement) for prompt in prompts]


def _prompts(
    told: Mapping[str, Any], shape: tuple[int, int, int]
) -> tuple[list[Prompt], list[int], tuple[str, ...]]:
    """Prompts of a record, their values in the label map, and names.

    The server records `roi`, `foreground` and `background` of one object; batch runs and `segmed predict`
    record `boxes`, and the latter `points` and `not_points`.
    """
    boxes = told.get("boxes") or []
    if not boxes:
        clicks = _points(told, "foreground"), _points(told, "background")
        return [parse_prompt(shape, told.get("roi") or None, *clicks)[0]], [1], ()
    rois = [_numbers(box["roi"] if isinstance(box, Mapping) else box) for box in boxes]
    named = [str(box["label"]) for box in boxes if isinstance(box, Mapping)]
    values = [int(box.get("value", 0)) if isinstance(box, Mapping) else 0 for box in boxes]
    fore, back = _points(told, "foreground"), _points(told, "background")
    prompts = []
    for roi in rois:
        mine = fore if len(rois) < 2 else [p for p in fore if _inside(p, roi)]
        prompts.append(parse_prompt(shape, roi, mine, back)[0])
    if not all(values):
        values = list(range(1, len(rois) + 1))
    names = dict(zip(values, named, strict=False)) if named else {}
    return prompts, values, tuple(names.get(value, f"label {value}") for value in range(1, max(values) + 1))


def _points(told: Mapping[str, Any], kind: str) -> list[list[float]]:
    other = {"foreground": "points", "background": "not_points"}[kind]
    found = [*(told.get(kind) or []), *(told.get(other) or [])]
    return [[*_numbers(point), 0.0][:3] for point in found]


def _numbers(value: Any) -> list[float]:
    parts = value.replace(" ", "").split(",") if isinstance(value, str) else value
    numbers = [float(part) for part in parts]
    return [*numbers, 0.0, 0.0] if len(numbers) == _NUMBERED - 2 else numbers


def _inside(point: Sequence[float], roi: Sequence[float]) -> bool:
    return all(min(roi[2 * a : 2 * a + 2]) <= v <= max(roi[2 * a : 2 * a + 2]) for a, v in enumerate(point))


def _warnings(record: Provenance) -> tuple[str, ...]:
    if record.software == segmed.__version__:
        return ()
    return (
        f"The mask was made by SegMed {record.software}, this is {segmed.__version__}: masks may differ. "
        "Install that version to get the same one.",
    )
