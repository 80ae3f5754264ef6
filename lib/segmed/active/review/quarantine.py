"""The quarantine: labels that no model agrees with are held for a review, never dropped silently.

Training needs labels that differ from the model. A label is suspect only if it differs strongly from every
model version that usually agrees with labels: then a mistake of the annotator, a wrong image or noise is more
likely than a model that suddenly fails. Compare Northcutt, Jiang and Chuang, Confident Learning: Estimating
Uncertainty in Dataset Labels (2021)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from segmed.evaluation.metrics import Overlap

_SD = 1.4826  # standard deviation of a normal distribution, in median absolute deviations


@dataclass(frozen=True)
class QuarantineConfig:
    """Limits beyond which a label is suspect.

    Attributes:
        floor: Dice above which a label is never held.
        deviations: Number of robust standard deviations below the version's usual Dice from which a label is
            suspect.
        reliable: Least usual Dice of a version whose agreement counts.
        fewest: Least number of earlier labels from which the usual Dice is taken; with fewer, a version is
            ignored.
    """

    floor: float = 0.3
    deviations: float = 4.0
    reliable: float = 0.6
    fewest: int = 5

    def __post_init__(self) -> None:
        if not 0 <= self.floor < self.reliable <= 1:
            raise ValueError(
                f"floor {self.floor} and reliable {self.reliable} must be Dice in [0, 1], the former below "
                "the latter, such as 0.3 and 0.6."
            )
        if not 0 < self.deviations < math.inf or self.fewest < 2:
            raise ValueError(
                f"deviations {self.deviations} must be above 0 and fewest {self.fewest} 2 or more."
            )


def suspicion(
    dice: Mapping[str, float], usual: Mapping[str, Sequence[float]], config: QuarantineConfig | None = None
) -> str:
    """Why a label should be reviewed before a model is trained on it; "" if it need not be.

    Args:
        dice: Dice of the label and each version's prediction, by version; NaN where it could not be measured.
        usual: Dice of earlier kept labels, by version.
        config: Limits beyond which a label is suspect.
    """
    config = config or QuarantineConfig()
    disagreeing = []
    for version, value in sorted(dice.items()):
        earlier = np.array([v for v in usual.get(version, ()) if math.isfinite(v)])
        if not math.isfinite(value) or len(earlier) < config.fewest or np.median(earlier) < config.reliable:
            continue
        middle = float(np.median(earlier))
        # robust standard deviation: 1.4826 × median |d - median d|
        spread = _SD * float(np.median(np.abs(earlier - middle)))
        if value > min(config.floor, middle - config.deviations * max(spread, 0.02)):
            return ""
        disagreeing.append(f"{version} {value:.2f}, usually {middle:.2f}")
    if not disagreeing:
        return ""
    return (
        "The label differs strongly from every model version that usually agrees with labels: "
        f"Dice {'; '.join(disagreeing)}."
    )


def label_dice(first: np.ndarray, second: np.ndarray) -> dict[int, float]:
    """Dice of each label in either map except 0; empty for two empty maps.

    Args:
        first: Label map of integers, of any shape.
        second: Label map of integers, of the same shape.

    Raises:
        ValueError: The shapes differ.
    """
    if first.shape != second.shape:
        raise ValueError(
            f"Label maps of shapes {first.shape} and {second.shape} cannot be compared; resample one."
        )
    values = np.union1d(np.unique(first), np.unique(second))
    return {int(v): Overlap.of(first == v, second == v).dice() for v in values if v}
