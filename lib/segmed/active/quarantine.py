"""Labels that no model can follow: held back for a person to look at, never dropped in silence.

A label that differs from the model is what training is for. It is suspect only if it differs wildly from every model
version that usually agrees with labels: then a slip of the hand, a wrong image or noise is likelier than a model that
suddenly fails. Compare Northcutt, Jiang and Chuang, Confident Learning: Estimating Uncertainty in Dataset Labels
(2021).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from segmed.evaluation.metrics import Overlap

_SD = 1.4826  # standard deviation of a normal distribution in median absolute deviations


@dataclass(frozen=True)
class QuarantineConfig:
    """When a label is suspect.

    Attributes:
        floor: a label with more Dice than this is never held.
        deviations: robust standard deviations below the version's usual Dice that count as wild.
        reliable: least usual Dice of a version whose word counts.
        fewest: earlier labels from which the usual Dice is taken; with fewer a version says nothing.
    """

    floor: float = 0.3
    deviations: float = 4.0
    reliable: float = 0.6
    fewest: int = 5

    def __post_init__(self) -> None:
        if not 0 <= self.floor < self.reliable <= 1:
            raise ValueError(
                f"floor {self.floor} and reliable {self.reliable} must be Dice in [0, 1], the former below the latter, "
                "such as 0.3 and 0.6."
            )
        if not 0 < self.deviations < math.inf or self.fewest < 2:
            raise ValueError(f"deviations {self.deviations} must be above 0 and fewest {self.fewest} 2 or more.")


def suspicion(
    dice: Mapping[str, float], usual: Mapping[str, Sequence[float]], config: QuarantineConfig | None = None
) -> str:
    """Why a label should be looked at before a model learns from it, or "".

    Args:
        dice: of the label against what each version predicts, by version; NaN where it could not be measured.
        usual: Dice of earlier, unsuspicious labels by version.
        config: limits.
    """
    config = config or QuarantineConfig()
    witnesses = []
    for version, value in sorted(dice.items()):
        earlier = np.array([v for v in usual.get(version, ()) if math.isfinite(v)])
        if not math.isfinite(value) or len(earlier) < config.fewest or np.median(earlier) < config.reliable:
            continue
        middle = float(np.median(earlier))
        spread = _SD * float(np.median(np.abs(earlier - middle)))
        if value > min(config.floor, middle - config.deviations * max(spread, 0.02)):
            return ""
        witnesses.append(f"{version} {value:.2f}, usually {middle:.2f}")
    if not witnesses:
        return ""
    return f"The label differs wildly from every model version that usually agrees: Dice {'; '.join(witnesses)}."


def label_dice(first: np.ndarray, second: np.ndarray) -> dict[int, float]:
    """Dice of each label that either map has, 0 excepted; nothing for two empty maps.

    Args:
        first: label map of integers, any shape.
        second: likewise, of the same shape.

    Raises:
        ValueError: shapes differ.
    """
    if first.shape != second.shape:
        raise ValueError(f"Label maps of shapes {first.shape} and {second.shape} cannot be compared; resample one.")
    values = np.union1d(np.unique(first), np.unique(second))
    return {int(v): Overlap.of(first == v, second == v).dice() for v in values if v}
