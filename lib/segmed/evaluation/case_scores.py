"""Scores of cases, aggregated from scores of their images, by which models are compared."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # it imports MONAI, which whoever compares scores does not need
    from segmed.evaluation.segmentation_scores import ImageScore


@dataclass(frozen=True)
class CaseScore:
    """The scores of one label on one validation case.

    Attributes:
        case: Name of the patient, or image id.
        label: Name of the structure.
        dice: 2TP/(2TP+FP+FN) over all pixels of the case; 1 if both masks are empty.
        hd95: 95th percentile of the surface distances in the unit of the dataset, in 3-D for volumes,
            averaged over the images of the case with both masks; infinite if there is no such image but one
            mask is not empty, 0 if both are empty.
        present: Whether the case has the structure. If not, a Dice of 1 means only that nothing was found,
            from which a model that never finds anything would profit.
        nsd: Normalised surface Dice at 2 mm, averaged over the images of the case with a mask; 1 if all are
            empty, None in scores that were stored before it was measured.
    """

    case: str
    label: str
    dice: float
    hd95: float
    present: bool = True
    nsd: float | None = None


def case_scores(scores: Sequence[ImageScore], classes: Mapping[int, str]) -> list[CaseScore]:
    """Aggregate scores of images to one score per patient and label, sorted.

    Args:
        scores: Scores of images, such as those of `WholeScores`.
        classes: Names of the labels by value.
    """
    groups: dict[tuple[str, int], list[ImageScore]] = defaultdict(list)
    for score in scores:
        groups[score.patient, score.label].append(score)
    return [
        CaseScore(
            case,
            classes[label],
            reduce(add, (s.overlap for s in mine)).dice("one"),
            _hd95(mine),
            any(s.has_truth for s in mine),
            _nsd(mine),
        )
        for (case, label), mine in sorted(groups.items())
    ]


def mean_dice(scores: Sequence[CaseScore]) -> float:
    """Mean Dice over the cases that have the structure, then over labels; NaN without scores."""
    scores = [s for s in scores if s.present] or scores
    labels = sorted({s.label for s in scores})
    means = [float(np.mean([s.dice for s in scores if s.label == name])) for name in labels]
    return float(np.mean(means)) if means else math.nan


def _hd95(scores: Sequence[ImageScore]) -> float:
    finite = [s.hd95 for s in scores if math.isfinite(s.hd95)]
    if finite:
        return float(np.mean(finite))
    return math.inf if any(math.isinf(s.hd95) for s in scores) else 0.0


def _nsd(scores: Sequence[ImageScore]) -> float:
    known = [s.nsd for s in scores if not math.isnan(s.nsd)]
    return float(np.mean(known)) if known else 1.0
