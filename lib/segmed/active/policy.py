"""The policy that decides when to retrain."""

from __future__ import annotations

import math
from dataclasses import dataclass

_FIRST_WAIT = 0.25  # h after a failure; doubled with each further one
_LONGEST_WAIT = 24.0


@dataclass(frozen=True)
class RetrainConfig:
    """Conditions of a retraining, of which one suffices; with all of them off, none is begun.

    Attributes:
        labels: Number of images labelled since the last retraining; 0 turns the condition off.
        hours: Time since the last retraining in hours, if anything was labelled; 0 turns the condition off.
        on_drift: Whether drift begins a retraining, if anything was labelled since the last one.
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
    """The facts that the decision depends on.

    Attributes:
        busy: Whether a retraining is under way.
        new_labels: Number of images labelled since the last retraining with a verdict was reserved.
        hours: Time in hours since that retraining ended, or since the database was created.
        drift: Description of the measured drift; "" if there is none.
        failures: Number of retrainings that failed since.
        hours_since_failure: Time since the last failure in hours.
    """

    busy: bool = False
    new_labels: int = 0
    hours: float = 0.0
    drift: str = ""
    failures: int = 0
    hours_since_failure: float = 0.0


def retraining_reason(config: RetrainConfig, situation: Situation) -> str:
    """The reason to retrain now; "" if there is none.

    After a failure, no retraining is begun for a quarter of an hour, and for twice as long after each further
    one, at most a day."""
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
