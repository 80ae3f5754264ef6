"""How well boxes were found: mean average precision by MONAI, precision and recall.

Source: Lin et al., Microsoft COCO: Common Objects in Context, 2014, for the averages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segmed.monai_parts import COCOMetric, box_iou, matching_batch


@dataclass(frozen=True)
class FoundBoxes:
    """Boxes of one slice.

    Attributes:
        corners: (N, 4) as x0, y0, x1, y1.
        labels: (N,) class, counted from 1.
        scores: (N,), of detected ones.
    """

    corners: np.ndarray
    labels: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class DetectionScores:
    """Over all slices.

    Attributes:
        map50: mean average precision at an IoU of 0.5.
        map50_95: mean over IoU 0.5, 0.55, …, 0.95.
        precision: share of the detected boxes that lie on an object of their class with an IoU of 0.5 or more.
        recall: share of the objects that were detected so.
        boxes: detected, of those that count.
        objects: that there are.
        slices_without: slices with an object on which nothing was detected.
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
        found: detected boxes. The averages go over all thresholds, so that boxes of low scores belong to it.
        truth: boxes of the objects.
        names: of class 1, 2, …
        confidence: lowest score of a box that counts for precision and recall.
        most: so many boxes of a slice count there, the most certain ones; None takes all.

    Raises:
        ValueError: not as many slices in both.
    """
    if len(found) != len(truth):
        raise ValueError(f"{len(found)} slices cannot be compared with {len(truth)}.")
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
    """MONAI's averages over the classes that there are; it would count the others as -1."""
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
    return max(float(averages.get(name, 0.0)), 0.0)  # MONAI gives -1 where there is nothing


def _hits(found: FoundBoxes, truth: FoundBoxes) -> int:
    """Detected boxes on an object that no more certain one has taken."""
    free = np.ones(len(truth.labels), bool)
    hits = 0
    for n in np.argsort(-found.scores, kind="stable"):
        overlap = box_iou(found.corners[n : n + 1], truth.corners)[0] if len(truth.labels) else np.zeros(0)
        overlap = np.where(free & (truth.labels == found.labels[n]), overlap, 0)
        if len(overlap) and overlap.max() >= 0.5:
            free[overlap.argmax()] = False
            hits += 1
    return hits
