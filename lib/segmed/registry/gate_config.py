"""The limits of the gate."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class GateConfig:
    """The limits of the gate.

    All limits of the Dice lie below the differences between two readers of one image (Joskowicz et al.,
    Inter-observer variability of manual contour delineation of structures in CT, 2019).

    Attributes:
        smallest_gain: Gain of the mean Dice that a candidate must exceed, unless the Dice does not fall and
            fewer structures are missed or falsely found. Smaller gains are within the effect of other
            hardware or batch sizes.
        tolerance: Largest distance by which the lower end of the mean gain's interval may lie below 0, so
            that a gain from a single case is not enough. A larger gain may risk as much as it brings;
            otherwise nothing could be learned from the few and varied cases of a first training.
        label_drop: Largest allowed fall of the mean Dice of any label, whatever the gain of the others,
            unless the fall is not significant while the mean gain is. More missed structures, which the mean
            Dice already includes, lead to rejection only if their interval lies above 0.
        hd95_rise: Largest allowed rise of the mean HD95, as a share of its old value.
        hd95_least: Rise of the mean HD95 in mm, about a voxel, that is always allowed. A larger rise leads to
            rejection only if its interval lies above 0.
        confidence: Two-sided confidence of the intervals; at 0.9 each end is wrong for one of twenty
            candidates.
        fewest_cases: Smallest number of cases with an interval. Three is the smallest number for which the 5
            % quantile is not simply the worst case in every draw.
        resamples: Resamples of the bootstrap.
        seed: Seed of the bootstrap.
    """

    smallest_gain: float = 0.001
    tolerance: float = 0.02
    label_drop: float = 0.05
    hd95_rise: float = 0.2
    hd95_least: float = 1.0
    confidence: float = 0.9
    fewest_cases: int = 3
    resamples: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("smallest_gain", "tolerance", "label_drop"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give a difference of Dice from 0 to 1.")
        if not (0 <= self.hd95_rise < math.inf and 0 <= self.hd95_least < math.inf):
            raise ValueError(
                f"hd95_rise is {self.hd95_rise} and hd95_least is {self.hd95_least}; "
                "both must be 0 or positive."
            )
        if not 0.5 <= self.confidence < 1:
            raise ValueError(
                f"confidence is {self.confidence}; give a number from 0.5 to below 1, such as 0.9."
            )
        if self.fewest_cases < 2 or not 100 <= self.resamples <= 100_000:
            raise ValueError(
                f"fewest_cases is {self.fewest_cases}, which must be 2 or more, and resamples is "
                f"{self.resamples}, which must be from 100 to 100000."
            )
