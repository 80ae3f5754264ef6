"""Scores of detected boxes: mean average precision by MONAI, precision and recall.

Source: Lin et al., Microsoft COCO: Common Objects in Context, 2014, for the averages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segmed.monai_parts import COCOMetric, box_iou, matching_batch


@dataclass(frozen=True)
class FoundBoxes:
    """The boxes of one slice.

    Attributes:
        corners: Boxes (N, 4) as x0, y0, x1, y1 in px.
        labels: Classes (N,), counted from 1.
        scores: Scores (N,) of detected boxes.
    """

    corners: np.ndarray
    labels: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class DetectionScores:
    """The scores over all slices.

    Attributes:
        map50: Mean average precision at an IoU of 0.5.
        map50_95: Mean of the average precisions at IoU 0.5, 0.55, …, 0.95.
        precision: Share of the detected boxes that match an object of their class with an IoU of at least
            0.5.
        recall: Share of the objects that are matched by a box in this way.
        boxes: Number of detected boxes that count.
        objects: Number of objects.
        slices_without: Number of slices with an object and without a detected box.
    """

    map50: float
    map50_95: float
    precision: float
    recall: float
    boxes: int
    objects: int
    slices_without: int


def score_boxes(
    found: Sequence[FoundBoxes],
    truth: Sequence[FoundBoxes],
    names: Sequence[str],
    confidence: float = 0.0,
    most: int | None = None,
) -> DetectionScores:
    """Compare boxes slice by slice.

    Args:
        found: Detected boxes, with those of low scores, because the averages are taken over all thresholds.
        truth: Boxes of the objects.
        names: Names of class 1, 2, …
        confidence: Lowest score of a box that counts for precision and recall.
        most: Largest number of boxes per slice that count for precision and recall, or None for all.

    Raises:
        ValueError: If the numbers of slices differ.
    """
    if len(found) != len(truth):
        raise ValueError(
            f"Boxes of {len(found)} slices cannot be compared with those of {len(truth)} slices; "
            "give the same slices."
        )
    present = sorted({int(label) for t in truth for label in t.labels})
    averages = _averages(found, truth, present, names) if present else {}
    sure = [_sure(f, confidence, most) for f in found]
    hits = sum(_hits(f, t) for f, t in zip(sure, truth, strict=True))
    boxes, objects = sum(len(f.labels) for f in sure), sum(len(t.labels) for t in truth)
    return DetectionScores(
        _of(averages, "AP_IoU_0.50_MaxDet_100"),
        _of(averages, "mAP_IoU_0.50_0.95_0.05_MaxDet_100"),
        hits / boxes if boxes else 0.0,
        hits / objects if objects else float("nan"),
        boxes,
        objects,
        sum(len(t.labels) > 0 and len(f.labels) == 0 for f, t in zip(sure, truth, strict=True)),
    )


def _sure(found: FoundBoxes, confidence: float, most: int | None) -> FoundBoxes:
    order = np.argsort(-found.scores, kind="stable")
    kept = order[found.scores[order] >= confidence][:most]
    return FoundBoxes(found.corners[kept], found.labels[kept], found.scores[kept])


def _averages(
    found: Sequence[FoundBoxes], truth: Sequence[FoundBoxes], present: Sequence[int], names: Sequence[str]
) -> dict[str, float]:
    """MONAI's averages over the present classes; it would count the others as -1."""
    place = {label: n for n, label in enumerate(present)}
    metric = COCOMetric([names[p - 1] for p in present], (0.5,), (0.5, 0.95, 0.05), max_detection=(100,))
    known = [np.isin(f.labels, present) for f in found]
    matches = matching_batch(
        iou_fn=box_iou,  # type: ignore[arg-type]
        iou_thresholds=metric.iou_thresholds.tolist(),
        pred_boxes=[f.corners[k] for f, k in zip(found, known, strict=True)],
        pred_classes=[_places(f.labels[k], place) for f, k in zip(found, known, strict=True)],
        pred_scores=[f.scores[k] for f, k in zip(found, known, strict=True)],
        gt_boxes=[t.corners for t in truth],
        gt_classes=[_places(t.labels, place) for t in truth],
    )
    return dict(metric(matches)[0])


def _places(labels: np.ndarray, place: dict[int, int]) -> np.ndarray:
    return np.array([place[int(label)] for label in labels], int)


def _of(averages: dict[str, float], name: str) -> float:
    return max(float(averages.get(name, 0.0)), 0.0)  # MONAI returns -1 for missing values


def _hits(found: FoundBoxes, truth: FoundBoxes) -> int:
    """Number of detected boxes that match an object which no box of higher score has matched."""
    free = np.ones(len(truth.labels), bool)
    hits = 0
    for n in np.argsort(-found.scores, kind="stable"):
        overlap = box_iou(found.corners[n : n + 1], truth.corners)[0] if len(truth.labels) else np.zeros(0)
        overlap = np.where(free & (truth.labels == found.labels[n]), overlap, 0)
        if len(overlap) and overlap.max() >= 0.5:
            free[overlap.argmax()] = False
            hits += 1
    return hits
