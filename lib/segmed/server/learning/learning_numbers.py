"""Labels and the work on them in numbers, for administrators."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from typing import Any

from segmed.active.store.labels import LabelLog


def labelling_numbers(log: LabelLog) -> dict[str, Any]:
    """Numbers of submissions, the work on them, and the Dice of the proposals.

    Returns:
        `labels`: number of submissions by state. `held`: labels that wait for a review. `contested`: images
            that several users labelled differently. `cases`: finished cases, with the medians of their
            prompts and seconds. `dice`: mean Dice of proposals against submissions over images, by structure.
    """
    labels = log.labels()
    states = Counter(record.state for record in labels)
    # labels that were copied into the studies have no sign of work
    finished = [case for case in log.cases() if case.label is not None and (case.prompts or case.seconds)]
    dice: dict[str, list[float]] = defaultdict(list)
    for record in labels:
        for name, value in record.agreement.items():
            dice[name].append(value)
    return {
        "labels": {state: states[state] for state in ("kept", "held", "dropped", "deleted")},
        "held": states["held"],
        "contested": len(log.contested()),
        "cases": {
            "finished": len(finished),
            "prompts": statistics.median(case.prompts for case in finished) if finished else None,
            "seconds": round(statistics.median(case.seconds for case in finished), 1) if finished else None,
        },
        "dice": {name: round(statistics.fmean(values), 4) for name, values in sorted(dice.items())},
    }
