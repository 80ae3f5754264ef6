"""Sums and medians over submissions and the work on them, by user, day and strategy."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import TypeVar

from segmed.active.labels import CaseWork, LabelRecord

STATES = ("kept", "held", "dropped", "deleted")
_T = TypeVar("_T")


@dataclass(frozen=True)
class UserLabels:
    """What a user submitted.

    Attributes:
        user: who.
        labels: submissions, whatever became of them.
        images: different ones.
        states: submissions by what became of them.
        first: day.
        last: day.
        proposals: median Dice of what the model proposed against what was submitted; None if nothing was proposed.
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
        name: of the user or strategy.
        cases: finished ones.
        prompts: median.
        seconds: median.
        prompts_in_all: sum.
        hours: sum of the seconds.
    """

    name: str
    cases: int
    prompts: float
    seconds: float
    prompts_in_all: int
    hours: float


def day_of(at: float) -> date:
    """The day of a time (s since 1970) where this machine is."""
    return datetime.fromtimestamp(at).date()


def proposal_dice(label: LabelRecord) -> float | None:
    """Mean Dice over structures of what was proposed; None if nothing was."""
    return statistics.fmean(label.agreement.values()) if label.agreement else None


def labels_per_day(labels: Iterable[LabelRecord]) -> Counter[tuple[date, str]]:
    """Submissions by day and user."""
    return Counter((day_of(label.at), label.user) for label in labels)


def labels_per_user(labels: Iterable[LabelRecord]) -> list[UserLabels]:
    """One row per user, those with the most labels first."""
    rows = []
    for user, mine in _grouped(labels, lambda label: label.user).items():
        days = [day_of(label.at) for label in mine]
        dice = [value for label in mine if (value := proposal_dice(label)) is not None]
        rows.append(
            UserLabels(
                user=user,
                labels=len(mine),
                images=len({label.image for label in mine}),
                states=Counter(label.state for label in mine),
                first=min(days),
                last=max(days),
                proposals=statistics.median(dice) if dice else None,
            )
        )
    return sorted(rows, key=lambda row: (-row.labels, row.user))


def is_finished(case: CaseWork) -> bool:
    """Whether it led to a label and there is a sign of work on it; labels drawn elsewhere have none."""
    return case.label is not None and (case.prompts > 0 or case.seconds > 0)


def work_per(cases: Iterable[CaseWork], key: Callable[[CaseWork], str]) -> list[Work]:
    """Finished cases by what `key` gives, the largest group first."""
    groups = _grouped((case for case in cases if is_finished(case)), key)
    rows = [
        Work(
            name=name,
            cases=len(mine),
            prompts=statistics.median(case.prompts for case in mine),
            seconds=statistics.median(case.seconds for case in mine),
            prompts_in_all=sum(case.prompts for case in mine),
            hours=sum(case.seconds for case in mine) / 3600,
        )
        for name, mine in groups.items()
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
