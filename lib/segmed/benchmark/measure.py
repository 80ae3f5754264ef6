"""A method on the slices of a test set, asked as a table says: masks and boxes against the truth, and the time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from segmed.benchmark.tables import Protocol
from segmed.data.slices import LabelledSlice, SliceDataset
from segmed.evaluation.annotator import jittered
from segmed.evaluation.detection_scores import DetectionScores, FoundBoxes, score_boxes
from segmed.evaluation.metrics import Overlap
from segmed.evaluation.oracle import oracle_scores
from segmed.evaluation.segmentation_scores import ImageScore, score_mask
from segmed.imaging.masks import slice_box
from segmed.imaging.picture import Picture
from segmed.imaging.store import ByteBoundedStore
from segmed.methods.automatic_masks import PRESETS, automatic_masks
from segmed.methods.detection import boxes_of
from segmed.methods.predictor import Predictor
from segmed.methods.segmenter import Segmenter
from segmed.training.overlay import overlay_sheet
from segmed.training.targets import class_places
from segmed.training.validation import ShownCase, batches_alike, found_masks

BACKGROUND = 0
_EMBEDDINGS = 64 * 2**20
_ALL_BOXES = (0.001, 100)  # least score and largest number of boxes that average precisions go over


@dataclass(frozen=True)
class Measured:
    """What `measure` found.

    Attributes:
        scores: of objects on slices; label 0 is the background, where a method tells it.
        slices: the number of the slice of each score.
        seconds: everything, reading and scoring among it.
        model_seconds: encoding and decoding alone.
        count: slices.
    """

    scores: list[ImageScore] = field(default_factory=list)
    slices: list[int] = field(default_factory=list)
    seconds: float = 0.0
    model_seconds: float = 0.0
    count: int = 0


@dataclass(frozen=True)
class EvalProtocol:
    """How a method is asked.

    Attributes:
        protocol: see `tables.PROTOCOLS`.
        classes: names of the labels that count; None for those of the dataset.
        batch: slices encoded together.
        jitter: largest move of a side of a box, as share of the box.
        size: side in px of the masks, if not that of the slices.
        proposals: preset of an oracle's proposals.
        points: of the grid of an oracle's clicks, per side.

    Raises:
        ValueError: no such preset.
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
            raise ValueError(f"There are no proposals {self.proposals!r}. Choose from {', '.join(PRESETS)}.")


@torch.inference_mode()
def measure(
    method: Segmenter, data: SliceDataset, question: EvalProtocol, tell: Callable[[float], None] | None = None
) -> Measured:
    """Score every slice of a dataset for every label that counts.

    Args:
        method: in evaluation mode, on any device.
        data: test slices.
        question: how to ask.
        tell: called with the share that is done.

    Raises:
        ValueError: the method lacks a class of the dataset, or a slice cannot be read.
    """
    if question.protocol == "oracle":
        return _measure_oracle(method, data, question, tell)
    classes = data.classes if question.classes is None else question.classes
    places = class_places(method, classes) if question.protocol == "classes" else None
    out, model_seconds = Measured(), 0.0
    start = time.perf_counter()
    for numbers, samples in batches_alike(data, range(len(data)), question.batch):
        generator = np.random.default_rng(numbers[0])
        begun = time.perf_counter()
        found = [dict[int, np.ndarray]() for _ in samples]
        if places is not None or any((s.labels == value).any() for s in samples for value in classes):
            embedding = method.embed([s.image for s in samples])
            box = _box(question.jitter, generator)
            size = (question.size, question.size) if question.size else None
            found = found_masks(method, embedding, samples, classes, places, box, size)
        model_seconds += time.perf_counter() - begun
        for number, sample, masks in zip(numbers, samples, found, strict=True):
            sample = _resized(sample, question.size) if question.size else sample
            nothing = np.zeros(sample.labels.shape, bool)
            asked = {value: (masks.get(value, nothing), sample.labels == value) for value in classes}
            if places is not None and len(classes) == len(data.classes):
                named = np.any([mask for mask, _ in asked.values()], 0)
                overlap = Overlap.of(~named, sample.labels == 0)
                out.scores.append(ImageScore(overlap, math.nan, sample.patient, BACKGROUND))  # its outline is theirs
                out.slices.append(number)
            for value, (mask, truth) in asked.items():
                out.scores.append(score_mask(mask, truth, sample.spacing, sample.patient, value))
                out.slices.append(number)
        if tell:
            tell((numbers[-1] + 1) / len(data))
    return replace(out, seconds=time.perf_counter() - start, model_seconds=model_seconds, count=len(data))


@torch.inference_mode()
def measure_boxes(method: Segmenter, data: SliceDataset, batch: int = 8, min_area: int = 20) -> DetectionScores:
    """The boxes that a method detects against those around the labelled pieces of at least `min_area` px.

    Raises:
        ValueError: the method finds no boxes, or lacks a class of the dataset.
    """
    if not method.finds_boxes:
        raise ValueError(f"{type(method).__name__} finds no boxes. Take a detector.")
    places = class_places(method, data.classes)
    found: list[FoundBoxes] = []
    truth: list[FoundBoxes] = []
    for _, samples in batches_alike(data, range(len(data)), batch):
        for boxes in method.detect(method.embed([s.image for s in samples]), *_ALL_BOXES):
            found.append(FoundBoxes(*(t.cpu().numpy() for t in (boxes.corners, boxes.labels, boxes.scores))))
        for sample in samples:
            there = boxes_of(places[sample.labels], min_area)
            truth.append(FoundBoxes(there["boxes"].numpy(), there["labels"].numpy(), np.ones(len(there["labels"]))))
    names = [data.classes[value] for value in sorted(data.classes)]
    config: Any = method.config  # a `DetectorConfig`
    return score_boxes(found, truth, names, config.confidence, config.most)


@torch.inference_mode()
def extremes(
    method: Segmenter, data: SliceDataset, measured: Measured, question: EvalProtocol
) -> tuple[np.ndarray, list[float]]:
    """The best, the median and the worst slice, with truth and mask outlined: (H, W, 3) uint8, and their Dice.

    Raises:
        ValueError: no slice has an object.
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


def _box(jitter: float, generator: np.random.Generator) -> Callable[[np.ndarray], tuple[float, float, float, float]]:
    def box(mask: np.ndarray) -> tuple[float, float, float, float]:
        tight = slice_box(mask)
        return jittered(tight, jitter, (mask.shape[0], mask.shape[1]), generator) if jitter else tight

    return box


def _resized(sample: LabelledSlice, side: int) -> LabelledSlice:
    """The labels on a square grid of another size, by nearest neighbours."""
    labels = torch.from_numpy(np.ascontiguousarray(sample.labels))[None, None]
    small = F.interpolate(labels, (side, side), mode="nearest-exact")[0, 0].numpy()
    rows, columns = (n * d / side for n, d in zip(sample.labels.shape, sample.spacing, strict=True))
    return replace(sample, labels=small, spacing=(rows, columns))


def _proposed(method: Segmenter, sample: LabelledSlice, question: EvalProtocol) -> list[np.ndarray]:
    """Masks (H, W) of everything on a slice."""
    array = np.swapaxes(sample.image, 0, 1)[:, :, None]
    picture = Picture(array, np.eye(4), "slice", "none")
    config = replace(PRESETS[question.proposals], points_per_side=question.points)
    predictor = Predictor(method, ByteBoundedStore(_EMBEDDINGS))
    return [one.mask for one in automatic_masks(predictor, picture, 0, config)]


def _best_proposals(method: Segmenter, sample: LabelledSlice, question: EvalProtocol) -> dict[int, np.ndarray]:
    proposed = _proposed(method, sample, question)
    best = {}
    for value in (int(v) for v in np.unique(sample.labels) if v):
        dice = [
            oracle_scores([mask], (sample.labels == value).astype(np.uint8))[-1].overlap.dice() for mask in proposed
        ]
        if dice:
            best[value] = proposed[int(np.argmax(dice))]
    return best


def _measure_oracle(
    method: Segmenter, data: SliceDataset, question: EvalProtocol, tell: Callable[[float], None] | None
) -> Measured:
    """Classes that a slice does not show are not scored: there is nothing to choose by."""
    out, model_seconds = Measured(), 0.0
    start = time.perf_counter()
    for number in range(len(data)):
        sample = data[number]
        begun = time.perf_counter()
        proposed = _proposed(method, sample, question)
        model_seconds += time.perf_counter() - begun
        mine = oracle_scores(proposed, sample.labels, sample.patient)
        out.scores.extend(mine)
        out.slices.extend([number] * len(mine))
        if tell:
            tell((number + 1) / len(data))
    return replace(out, seconds=time.perf_counter() - start, model_seconds=model_seconds, count=len(data))
