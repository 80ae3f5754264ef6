"""Measurement of a method on the slices of a test set by a table's protocol: masks, boxes and times."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from segmed.benchmark.table import Protocol
from segmed.data.slices import LabelledSlice, SliceDataset
from segmed.evaluation.detection_scores import DetectionScores, FoundBoxes, score_boxes
from segmed.evaluation.metrics import Overlap
from segmed.evaluation.oracle import oracle_scores
from segmed.evaluation.segmentation_scores import ImageScore, score_mask
from segmed.evaluation.whole_scores import WholeScores
from segmed.imaging.labels.masks import slice_box
from segmed.imaging.picture import Picture
from segmed.imaging.store import ByteBoundedStore
from segmed.inference.automatic_masks import PRESETS, automatic_masks
from segmed.inference.predictor import Predictor
from segmed.methods.base.segmenter import Segmenter
from segmed.methods.detector.detection import boxes_of
from segmed.simulation.slice_annotator import jittered
from segmed.training.overlay import overlay_sheet
from segmed.training.targets import class_places
from segmed.training.validation import ShownCase, batches_alike, found_masks

BACKGROUND = 0  # value of the background in label maps
_EMBEDDINGS = 64 * 2**20  # size of the embedding cache in bytes
_ALL_BOXES = (0.001, 100)  # lowest score and largest number of the boxes for average precisions


@dataclass(frozen=True)
class Measured:
    """The results of `measure`.

    Attributes:
        scores: Scores of objects on slices; label 0 is the background, for methods that label it.
        slices: Number of the slice of each score.
        whole: Scores of objects in whole images, whose surfaces are compared in 3-D in volumes.
        seconds: Total time in seconds, with reading and scoring.
        model_seconds: Time of encoding and decoding in seconds.
        count: Number of slices.
    """

    scores: list[ImageScore] = field(default_factory=list)
    slices: list[int] = field(default_factory=list)
    whole: list[ImageScore] = field(default_factory=list)
    seconds: float = 0.0
    model_seconds: float = 0.0
    count: int = 0


@dataclass(frozen=True)
class EvalProtocol:
    """The protocol of a measurement.

    Attributes:
        protocol: Kind of the protocol, see `tables.PROTOCOLS`.
        classes: Names of the labels that count, by value; None for those of the dataset.
        batch: Number of slices encoded together.
        jitter: Largest move of a side of a box, as a share of the side.
        size: Side of the masks in px, or None for the size of the slices.
        proposals: Preset of an oracle's proposals.
        points: Points per side of the grid of an oracle's clicks.

    Raises:
        ValueError: If there is no such preset.
    """

    protocol: Protocol
    classes: Mapping[int, str] | None = None
    batch: int = 8
    jitter: float = 0.0
    size: int | None = None
    proposals: str = "published"
    points: int = 32

    def __post_init__(self) -> None:
        if self.proposals not in PRESETS:
            raise ValueError(
                f"There is no preset {self.proposals!r} of proposals. Choose from {', '.join(PRESETS)}."
            )


@torch.inference_mode()
def measure(
    method: Segmenter, data: SliceDataset, question: EvalProtocol, tell: Callable[[float], None] | None = None
) -> Measured:
    """Score every slice of a dataset for every label that counts.

    Args:
        method: The method in evaluation mode, on any device.
        data: The test slices.
        question: The protocol of the measurement.
        tell: Function called with the share of the slices done.

    Raises:
        ValueError: If the method lacks a class of the dataset, or a slice cannot be read.
    """
    if question.protocol == "oracle":
        return _measure_oracle(method, data, question, tell)
    classes = data.classes if question.classes is None else question.classes
    places = class_places(method, classes) if question.protocol == "classes" else None
    out, model_seconds, whole = Measured(), 0.0, WholeScores(data)
    start = time.perf_counter()
    for numbers, samples in batches_alike(data, range(len(data)), question.batch):
        generator = np.random.default_rng(numbers[0])
        model_start = time.perf_counter()
        found = [dict[int, np.ndarray]() for _ in samples]
        if places is not None or any((s.labels == value).any() for s in samples for value in classes):
            embedding = method.embed([s.image for s in samples])
            box = _box(question.jitter, generator)
            size = (question.size, question.size) if question.size else None
            found = found_masks(method, embedding, samples, classes, places, box, size)
        model_seconds += time.perf_counter() - model_start
        for number, sample, masks in zip(numbers, samples, found, strict=True):
            sample = _resized(sample, question.size) if question.size else sample
            empty = np.zeros(sample.labels.shape, bool)
            found_here = {value: masks.get(value, empty) for value in classes}
            pairs = {value: (mask, sample.labels == value) for value, mask in found_here.items()}
            whole.add(number, sample, found_here)
            if places is not None and len(classes) == len(data.classes):
                labelled = np.any([mask for mask, _ in pairs.values()], 0)
                overlap = Overlap.of(~labelled, sample.labels == 0)
                # Its outline is that of the objects.
                out.scores.append(ImageScore(overlap, math.nan, sample.patient, BACKGROUND))
                out.slices.append(number)
            for value, (mask, truth) in pairs.items():
                out.scores.append(score_mask(mask, truth, None, sample.patient, value, surfaces=False))
                out.slices.append(number)
        if tell:
            tell((numbers[-1] + 1) / len(data))
    out = replace(out, whole=whole.finish())
    return replace(out, seconds=time.perf_counter() - start, model_seconds=model_seconds, count=len(data))


@torch.inference_mode()
def measure_boxes(
    method: Segmenter, data: SliceDataset, batch: int = 8, min_area: int = 20
) -> DetectionScores:
    """Score detected boxes against those around the labelled pieces of at least `min_area` px.

    Raises:
        ValueError: If the method is not a detector, or lacks a class of the dataset.
    """
    if not method.finds_boxes:
        raise ValueError(f"{type(method).__name__} finds no boxes. Take the method 'detector'.")
    places = class_places(method, data.classes)
    found: list[FoundBoxes] = []
    truth: list[FoundBoxes] = []
    for _, samples in batches_alike(data, range(len(data)), batch):
        for boxes in method.detect(method.embed([s.image for s in samples]), *_ALL_BOXES):
            found.append(FoundBoxes(*(t.cpu().numpy() for t in (boxes.corners, boxes.labels, boxes.scores))))
        for sample in samples:
            targets = boxes_of(places[sample.labels], min_area)
            truth.append(
                FoundBoxes(
                    targets["boxes"].numpy(), targets["labels"].numpy(), np.ones(len(targets["labels"]))
                )
            )
    names = [data.classes[value] for value in sorted(data.classes)]
    config: Any = method.config  # a `DetectorConfig`
    return score_boxes(found, truth, names, config.confidence, config.most)


@torch.inference_mode()
def extremes(
    method: Segmenter, data: SliceDataset, measured: Measured, question: EvalProtocol
) -> tuple[np.ndarray, list[float]]:
    """Draw the best, the median and the worst slice with outlines of truth and mask.

    Returns:
        The image (H, W, 3), uint8, and the Dice of the three slices.

    Raises:
        ValueError: If no slice has an object.
    """
    of_slice: dict[int, list[float]] = {}
    for number, score in zip(measured.slices, measured.scores, strict=True):
        if score.has_truth and score.label != BACKGROUND:
            of_slice.setdefault(number, []).append(score.overlap.dice())
    if not of_slice:
        raise ValueError("None of the test slices shows an object. Take more patients or slices.")
    order = sorted(of_slice, key=lambda number: (-float(np.mean(of_slice[number])), number))
    chosen = [order[0], order[len(order) // 2], order[-1]]
    shown = []
    classes = data.classes if question.classes is None else question.classes
    for number in chosen:
        sample = data[number]
        if question.protocol == "oracle":
            masks = _best_proposals(method, sample, question)
        else:
            places = class_places(method, classes) if question.protocol == "classes" else None
            masks = found_masks(method, method.embed([sample.image]), [sample], classes, places)[0]
        found = np.zeros_like(sample.labels)
        for value, mask in masks.items():
            found[mask] = value
        shown.append(ShownCase("", sample.image, sample.labels, found))
    return overlay_sheet(shown), [float(np.mean(of_slice[number])) for number in chosen]


def _box(
    jitter: float, generator: np.random.Generator
) -> Callable[[np.ndarray], tuple[float, float, float, float]]:
    def box(mask: np.ndarray) -> tuple[float, float, float, float]:
        tight = slice_box(mask)
        return jittered(tight, jitter, (mask.shape[0], mask.shape[1]), generator) if jitter else tight

    return box


def _resized(sample: LabelledSlice, side: int) -> LabelledSlice:
    """Resample the labels of a slice to a square of another size by nearest neighbours."""
    labels = torch.from_numpy(np.ascontiguousarray(sample.labels))[None, None]
    small = F.interpolate(labels, (side, side), mode="nearest-exact")[0, 0].numpy()
    rows, columns = (n * d / side for n, d in zip(sample.labels.shape, sample.spacing, strict=True))
    return replace(sample, labels=small, spacing=(rows, columns))


def _proposed(method: Segmenter, sample: LabelledSlice, question: EvalProtocol) -> list[np.ndarray]:
    """Automatic masks (H, W) of all objects on a slice."""
    array = np.swapaxes(sample.image, 0, 1)[:, :, None]
    picture = Picture(array, np.eye(4), "slice", "none")
    config = replace(PRESETS[question.proposals], points_per_side=question.points)
    predictor = Predictor(method, ByteBoundedStore(_EMBEDDINGS))
    return [one.mask for one in automatic_masks(predictor, picture, 0, config)]


def _best_proposals(
    method: Segmenter, sample: LabelledSlice, question: EvalProtocol
) -> dict[int, np.ndarray]:
    """The proposed mask (H, W) with the highest Dice for each label of a slice."""
    proposed = _proposed(method, sample, question)
    best = {}
    for value in (int(v) for v in np.unique(sample.labels) if v):
        dice = [
            oracle_scores([mask], (sample.labels == value).astype(np.uint8))[-1].overlap.dice()
            for mask in proposed
        ]
        if dice:
            best[value] = proposed[int(np.argmax(dice))]
    return best


def _measure_oracle(
    method: Segmenter, data: SliceDataset, question: EvalProtocol, tell: Callable[[float], None] | None
) -> Measured:
    """Measure with an oracle; only classes that are on a slice are scored."""
    out, model_seconds = Measured(), 0.0
    start = time.perf_counter()
    for number in range(len(data)):
        sample = data[number]
        model_start = time.perf_counter()
        proposed = _proposed(method, sample, question)
        model_seconds += time.perf_counter() - model_start
        mine = oracle_scores(proposed, sample.labels, sample.patient)
        out.scores.extend(mine)
        out.slices.extend([number] * len(mine))
        if tell:
            tell((number + 1) / len(data))
    out = replace(out, whole=out.scores)
    return replace(out, seconds=time.perf_counter() - start, model_seconds=model_seconds, count=len(data))
