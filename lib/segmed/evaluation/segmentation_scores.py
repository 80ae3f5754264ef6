"""Scores of masks against the truth, image by image, and their means with a stated policy for empty masks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np

from segmed.evaluation.metrics import EmptyPolicy, Overlap
from segmed.monai_parts import get_mask_edges, get_surface_distance


@dataclass(frozen=True)
class ImageScore:
    """One object, or class, on one image.

    Attributes:
        overlap: pixel counts.
        hd95: 95th percentile of the surface distances, the larger of both directions; infinite where only one of the
            masks is empty, NaN where both are.
        patient: whose image it is.
        label: class.
    """

    overlap: Overlap
    hd95: float
    patient: str = ""
    label: int = 1

    @property
    def has_truth(self) -> bool:
        return self.overlap.tp + self.overlap.fn > 0


@dataclass(frozen=True)
class Summary:
    """Means over images.

    `dice`, `iou`, `precision`, `recall`, `accuracy` and `hd95` are means over the images on which the object is, per
    label, then over the labels. A missed object counts 0; `hd95`, which has no value there, is the mean over the
    others, and `missed` says how often that was.

    Attributes:
        dice: 2TP/(2TP+FP+FN), the same as F1.
        iou: TP/(TP+FP+FN).
        precision: TP/(TP+FP), 0 where nothing was found.
        recall: TP/(TP+FN).
        hd95: in the unit of the spacing.
        missed: share of the images with truth on which nothing was found.
        accuracy: (TP+TN)/all.
        dice_all: Dice over all images, by the empty policy where neither mask has a pixel.
        iou_all: likewise of the IoU.
        dice_pooled: Dice of all pixels of all images together, mean over labels.
        iou_two_classes: mean of the IoU of object and background.
        images: scores that the means go over.
    """

    dice: float
    iou: float
    precision: float
    recall: float
    hd95: float
    missed: float
    accuracy: float
    dice_all: float
    iou_all: float
    dice_pooled: float
    iou_two_classes: float
    images: int


def score_mask(
    prediction: np.ndarray,
    truth: np.ndarray,
    spacing: Sequence[float] | None = None,
    patient: str = "",
    label: int = 1,
) -> ImageScore:
    """Compare two boolean masks.

    Args:
        prediction: (H, W) or (I, J, K).
        truth: likewise.
        spacing: distance of neighbours along each axis, 1 if not given.
        patient: kept in the score.
        label: likewise.

    Raises:
        ValueError: shapes differ, or the spacing has another number of axes.
    """
    overlap = Overlap.of(prediction, truth)
    if spacing is not None and len(spacing) != truth.ndim:
        raise ValueError(f"A spacing of {len(spacing)} axes does not fit masks of {truth.ndim}. Give one per axis.")
    found, there = overlap.tp + overlap.fp > 0, overlap.tp + overlap.fn > 0
    if found and there:
        hd95 = _hausdorff_95(prediction.astype(bool), truth.astype(bool), spacing)
    else:
        hd95 = math.inf if found or there else math.nan
    return ImageScore(overlap, hd95, patient, label)


def _hausdorff_95(first: np.ndarray, second: np.ndarray, spacing: Sequence[float] | None) -> float:
    """As `monai.metrics.compute_hausdorff_distance` says, whose own crop takes longer than all the rest on a slice."""
    there = [np.flatnonzero((first | second).any(tuple(set(range(first.ndim)) - {axis}))) for axis in range(first.ndim)]
    box = tuple(slice(place[0], place[-1] + 1) for place in there)
    edges = get_mask_edges(first[box], second[box], crop=False)
    scale = None if spacing is None else tuple(spacing)
    ways = (edges, edges[::-1])
    return max(float(np.percentile(get_surface_distance(a, b, spacing=scale), 95)) for a, b in ways)


def summarise(scores: Sequence[ImageScore], empty: EmptyPolicy = "one") -> Summary:
    """Means over images and labels.

    Args:
        scores: of one method.
        empty: what `dice_all` takes where neither mask has a pixel: 1, 0, or nothing at all. A mask found where there
            is no object counts 0 under each policy.

    Raises:
        ValueError: no scores, or none with an object in the truth.
    """
    labels = sorted({s.label for s in scores if s.has_truth})
    if not labels:
        raise ValueError(f"None of {len(scores)} images shows an object. Give images with a labelled object.")
    rows = [_summarise_label([s for s in scores if s.label == label], empty) for label in labels]
    return Summary(images=len(scores), **{name: _mean([row[name] for row in rows]) for name in rows[0]})


def _summarise_label(scores: Sequence[ImageScore], empty: EmptyPolicy) -> dict[str, float]:
    there = [s for s in scores if s.has_truth]
    overlaps = [s.overlap for s in there]
    background = [Overlap(o.tn, o.fn, o.fp, o.tp) for o in overlaps]
    pooled = reduce(add, (s.overlap for s in scores))
    return {
        "dice": _mean([o.dice() for o in overlaps]),
        "iou": _mean([o.iou() for o in overlaps]),
        "precision": _mean([o.tp / max(o.tp + o.fp, 1) for o in overlaps]),
        "recall": _mean([o.tp / (o.tp + o.fn) for o in overlaps]),
        "hd95": _mean([s.hd95 for s in there if math.isfinite(s.hd95)]),
        "missed": _mean([float(math.isinf(s.hd95)) for s in there]),
        "accuracy": _mean([o.accuracy for o in overlaps]),
        "dice_all": _mean([s.overlap.dice(empty) for s in scores]),
        "iou_all": _mean([s.overlap.iou(empty) for s in scores]),
        "dice_pooled": pooled.dice(),
        "iou_two_classes": _mean([(o.iou() + b.iou("one")) / 2 for o, b in zip(overlaps, background, strict=True)]),
    }


def _mean(values: Sequence[float]) -> float:
    """The mean of the values that are numbers, NaN if none is."""
    known = [v for v in values if not math.isnan(v)]
    return float(np.mean(known)) if known else math.nan
