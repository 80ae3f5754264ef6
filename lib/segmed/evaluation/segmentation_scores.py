"""Scores of masks, image by image, and their means with a stated policy for empty masks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np

from segmed.evaluation.metrics import EmptyPolicy, Overlap
from segmed.evaluation.surface import hausdorff, share_within, surface_distances

TOLERANCE = 2.0  # mm; distance of the surfaces that the NSD allows, as in the evaluation of MedSAM


@dataclass(frozen=True)
class ImageScore:
    """The score of one object, or class, on one image.

    Attributes:
        overlap: Pixel counts.
        hd95: 95th percentile of the surface distances, the larger of both directions; infinite if only one of
            the masks is empty, NaN if both are.
        patient: Name of the patient.
        label: Value of the class.
        nsd: Normalised surface Dice at `TOLERANCE`; 0 if only one of the masks is empty, NaN if both are.
        hd: Hausdorff distance, the largest surface distance; infinite or NaN as `hd95`.
    """

    overlap: Overlap
    hd95: float
    patient: str = ""
    label: int = 1
    nsd: float = math.nan
    hd: float = math.nan

    @property
    def has_truth(self) -> bool:
        """Whether the true mask is not empty."""
        return self.overlap.tp + self.overlap.fn > 0


@dataclass(frozen=True)
class Summary:
    """Means over images.

    `dice`, `iou`, `precision`, `recall`, `accuracy`, `hd95` and `nsd` are means over the images with the
    object, per label, then over the labels. A missed object counts as 0; `hd95`, which is infinite then, is
    the mean over the others, and `missed` is the share of such images.

    Attributes:
        dice: 2TP/(2TP+FP+FN), which equals F1.
        iou: TP/(TP+FP+FN).
        precision: TP/(TP+FP), 0 if nothing was found.
        recall: TP/(TP+FN).
        hd95: 95th percentile of the surface distances in the unit of the spacing.
        hd: Hausdorff distance, as `hd95` the mean over the images where something was found.
        nsd: Normalised surface Dice: the share of both surfaces within `TOLERANCE` of the other one.
        missed: Share of the images with the object on which nothing was found.
        accuracy: (TP+TN)/all.
        dice_all: Dice over all images, with the empty policy for two empty masks.
        iou_all: IoU over all images, with the empty policy for two empty masks.
        dice_pooled: Dice of the pixels of all images together, averaged over labels.
        iou_two_classes: Mean of the IoU of object and background.
        images: Number of scores.
    """

    dice: float
    iou: float
    precision: float
    recall: float
    hd95: float
    hd: float
    nsd: float
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
    surfaces: bool = True,
) -> ImageScore:
    """Compare two boolean masks.

    Args:
        prediction: The predicted mask, (H, W) or (I, J, K).
        truth: The true mask of the same shape.
        spacing: Distance of neighbouring pixels along each axis, or None for 1.
        patient: Name of the patient for the score.
        label: Value of the class for the score.
        surfaces: Whether to compare the surfaces; if not, `hd95` and `nsd` are NaN unless one mask is empty.

    Raises:
        ValueError: If the shapes differ, or the spacing has another number of axes.
    """
    overlap = Overlap.of(prediction, truth)
    if spacing is not None and len(spacing) != truth.ndim:
        raise ValueError(
            f"A spacing of {len(spacing)} axes does not fit masks of {truth.ndim}. Give one per axis."
        )
    found, present = overlap.tp + overlap.fp > 0, overlap.tp + overlap.fn > 0
    hd95 = hd = nsd = math.nan
    if found and present and surfaces:
        prediction, truth = prediction.astype(bool), truth.astype(bool)
        distances = surface_distances(prediction, truth, spacing)
        assert distances is not None
        (hd95, hd), nsd = hausdorff(distances), share_within(distances, TOLERANCE)
    elif found != present:
        hd95, hd, nsd = math.inf, math.inf, 0.0
    return ImageScore(overlap, hd95, patient, label, nsd, hd)


def summarise(scores: Sequence[ImageScore], empty: EmptyPolicy = "one") -> Summary:
    """Compute the means over images and labels.

    Args:
        scores: Scores of one method.
        empty: Policy of `dice_all` and `iou_all` for two empty masks: 1, 0, or left out. A mask found where
            there is no object counts as 0 under each policy.

    Raises:
        ValueError: If there are no scores, or none with an object in the truth.
    """
    labels = sorted({s.label for s in scores if s.has_truth})
    if not labels:
        raise ValueError(f"None of {len(scores)} images shows an object. Give images with a labelled object.")
    rows = [_summarise_label([s for s in scores if s.label == label], empty) for label in labels]
    return Summary(images=len(scores), **{name: _mean([row[name] for row in rows]) for name in rows[0]})


def _summarise_label(scores: Sequence[ImageScore], empty: EmptyPolicy) -> dict[str, float]:
    with_truth = [s for s in scores if s.has_truth]
    overlaps = [s.overlap for s in with_truth]
    background = [Overlap(o.tn, o.fn, o.fp, o.tp) for o in overlaps]
    pooled = reduce(add, (s.overlap for s in scores))
    return {
        "dice": _mean([o.dice() for o in overlaps]),
        "iou": _mean([o.iou() for o in overlaps]),
        "precision": _mean([o.tp / max(o.tp + o.fp, 1) for o in overlaps]),
        "recall": _mean([o.tp / (o.tp + o.fn) for o in overlaps]),
        "hd95": _mean([s.hd95 for s in with_truth if math.isfinite(s.hd95)]),
        "hd": _mean([s.hd for s in with_truth if math.isfinite(s.hd)]),
        "nsd": _mean([s.nsd for s in with_truth]),
        "missed": _mean([float(math.isinf(s.hd95)) for s in with_truth]),
        "accuracy": _mean([o.accuracy for o in overlaps]),
        "dice_all": _mean([s.overlap.dice(empty) for s in scores]),
        "iou_all": _mean([s.overlap.iou(empty) for s in scores]),
        "dice_pooled": pooled.dice(),
        "iou_two_classes": _mean(
            [(o.iou() + b.iou("one")) / 2 for o, b in zip(overlaps, background, strict=True)]
        ),
    }


def _mean(values: Sequence[float]) -> float:
    """The mean of the values that are not NaN, or NaN if there are none."""
    known = [v for v in values if not math.isnan(v)]
    return float(np.mean(known)) if known else math.nan
