"""Numbers of the report: sums and medians over submissions and work, by user, day and strategy."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import TypeVar

from segmed.active.store.labels import CaseWork, LabelRecord

STATES = ("kept", "held", "dropped", "deleted")
_T = TypeVar("_T")


@dataclass(frozen=True)
class UserLabels:
    """The submissions of a user.

    Attributes:
        user: Name of the user.
        labels: Number of submissions in any state.
        images: Number of different images.
        states: Number of submissions by state.
        first: Day of the first submission.
        last: Day of the last submission.
        proposals: Median Dice of the model's proposals against the submissions; None if nothing was proposed.
    """

    user: str
    labels: int
    images: int
    states: Counter[str]
    first: date
    last: date
    proposals: float | None


@dataclass(frozen=True)
class Work:
    """Finished cases of one user, or proposed by one strategy.

    Attributes:
        name: Name of the user or strategy.
        cases: Number of finished cases.
        prompts: Median number of prompts per case.
        seconds: Median working time per case in seconds.
        prompts_in_all: Number of prompts of all cases.
        hours: Working time of all cases in hours.
    """

    name: str
    cases: int
    prompts: float
    seconds: float
    prompts_in_all: int
    hours: float


def day_of(at: float) -> date:
    """The day of a time, in seconds since 1970, in the time zone of this machine."""
    return datetime.fromtimestamp(at).date()


def proposal_dice(label: LabelRecord) -> float | None:
    """Dice of the proposal, mean over structures; None if nothing was proposed."""
    return statistics.fmean(label.agreement.values()) if label.agreement else None


def labels_per_day(labels: Iterable[LabelRecord]) -> Counter[tuple[date, str]]:
    """Submissions by day and user."""
    return Counter((day_of(label.at), label.user) for label in labels)


def labels_per_user(labels: Iterable[LabelRecord]) -> list[UserLabels]:
    """One row per user, those with the most labels first."""
    rows = []
    for user, group in _grouped(labels, lambda label: label.user).items():
        days = [day_of(label.at) for label in group]
        dice = [value for label in group if (value := proposal_dice(label)) is not None]
        rows.append(
            UserLabels(
                user=user,
                labels=len(group),
                images=len({label.image for label in group}),
                states=Counter(label.state for label in group),
                first=min(days),
                last=max(days),
                proposals=statistics.median(dice) if dice else None,
            )
        )
    return sorted(rows, key=lambda row: (-row.labels, row.user))


def is_finished(case: CaseWork) -> bool:
    """Whether the case led to a label and holds signs of work; labels drawn in other programs have none."""
    return case.label is not None and (case.prompts > 0 or case.seconds > 0)


def work_per(cases: Iterable[CaseWork], key: Callable[[CaseWork], str]) -> list[Work]:
    """Finished cases by what `key` gives, the largest group first."""
    groups = _grouped((case for case in cases if is_finished(case)), key)
    rows = [
        Work(
            name=name,
            cases=len(group),
            prompts=statistics.median(case.prompts for case in group),
            seconds=statistics.median(case.seconds for case in group),
            prompts_in_all=sum(case.prompts for case in group),
            hours=sum(case.seconds for case in group) / 3600,
        )
        for name, group in groups.items()
    ]
    return sorted(rows, key=lambda row: (-row.cases, row.name))


def running_median(values: Sequence[float], width: int = 15) -> list[float]:
    """Median of each value and those before it, `width` in all."""
    return [statistics.median(values[max(0, n + 1 - width) : n + 1]) for n in range(len(values))]


def _grouped(items: Iterable[_T], key: Callable[[_T], str]) -> dict[str, list[_T]]:
    groups: dict[str, list[_T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups
