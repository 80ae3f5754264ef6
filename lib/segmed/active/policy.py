"""When labels are worth a new training."""

from __future__ import annotations

import math
from dataclasses import dataclass

_FIRST_WAIT = 0.25  # h after a failure; doubled with each further one
_LONGEST_WAIT = 24.0


@dataclass(frozen=True)
class RetrainConfig:
    """Any of these begins a retraining; with all of them off none is ever begun.

    Attributes:
        labels: images labelled anew since the last one; 0 is off.
        hours: since the last one, if anything was labelled; 0 is off.
        on_drift: whether drift does, if anything was labelled since.
    """

    labels: int = 20
    hours: float = 0.0
    on_drift: bool = False

    def __post_init__(self) -> None:
        if self.labels < 0 or not 0 <= self.hours < math.inf:
            raise ValueError(
                f"labels {self.labels} and hours {self.hours} must not be negative. Give 0 to switch one off."
            )


@dataclass(frozen=True)
class Situation:
    """What the decision depends on.

    Attributes:
        busy: whether a retraining is under way.
        new_labels: images labelled since the last one that came to a verdict was reserved.
        hours: since that one ended, or since the beginning.
        drift: what a measurement said, "" for none.
        failures: failed ones since.
        hours_since_failure: of the last.
    """

    busy: bool = False
    new_labels: int = 0
    hours: float = 0.0
    drift: str = ""
    failures: int = 0
    hours_since_failure: float = 0.0


def retraining_reason(config: RetrainConfig, situation: Situation) -> str:
    """Why to retrain now, or "".

    After failures it waits, a quarter of an hour at first and twice as long each time, at most a day.
    """
    if situation.busy or not situation.new_labels:
        return ""
    if situation.failures:
        wait = min(_FIRST_WAIT * 2.0 ** min(situation.failures - 1, 20), _LONGEST_WAIT)
        if situation.hours_since_failure < wait:
            return ""
    if config.labels and situation.new_labels >= config.labels:
        return f"{situation.new_labels} images were labelled since the last training."
    if config.on_drift and situation.drift:
        return situation.drift
    if config.hours and situation.hours >= config.hours:
        return f"{situation.hours:.0f} h have passed since the last training."
    return ""
