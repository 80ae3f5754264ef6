"""The gate: a candidate is served only if it beats the model in use on the same validation cases.

The unit of the statistics is the case, because slices of one patient resemble each other and would make a chance gain
look certain. Differences are taken case by case and resampled (Efron and Tibshirani, An Introduction to the Bootstrap,
1993). Means go over the cases that have a label and then over labels, so that small organs count as much as large ones,
and a model that never finds anything gains nothing by the cases in which nothing is.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segmed.evaluation.case_scores import CaseScore
from segmed.training.gate_statistics import bootstrap, present, tables

_FOUND = 0.05  # least Dice of a structure that counts as found


@dataclass(frozen=True)
class GateConfig:
    """What counts as better, and as worse.

    All limits of the Dice lie below the differences between two readers of one image (Joskowicz et al.,
    Inter-observer variability of manual contour delineation of structures in CT, 2019).

    Attributes:
        smallest_gain: the mean Dice must rise by more, or stay while less is missed or seen where nothing is. Smaller
            gains do not show in three digits, and other hardware or batch sizes move the Dice as much; an equal model
            is not worth an exchange.
        tolerance: the lower end of the interval of the mean gain must not lie further below 0: a gain that one lucky
            case makes is none. A larger gain may risk as much as it brings, else nothing could be learnt from the few
            and varied cases of a beginning.
        label_drop: most by which the mean Dice of any one label may fall, however much the others gain, unless chance
            explains the fall while the mean gain is certain. That structures are missed more often, which the mean Dice
            has counted, takes an interval above 0 to reject.
        hd95_rise: the mean HD95 may rise by this share of what it was,
        hd95_least: or by this much, about a voxel, whichever is more; it also takes an interval above 0 to reject.
        confidence: of the intervals, two-sided; at 0.9 each end is wrong in one of twenty candidates.
        fewest_cases: fewer give no interval. Three is the least number of which the 5 % quantile is not simply the
            worst case drawn every time.
        resamples: of the bootstrap.
        seed: likewise.
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
                raise ValueError(f"{name} is {getattr(self, name)}; give a difference of Dice in [0, 1].")
        if not (0 <= self.hd95_rise < math.inf and 0 <= self.hd95_least < math.inf):
            raise ValueError(f"hd95_rise {self.hd95_rise} and hd95_least {self.hd95_least} must be 0 or positive.")
        if not 0.5 <= self.confidence < 1:
            raise ValueError(f"confidence is {self.confidence}; give 0.5 to below 1, such as 0.9.")
        if self.fewest_cases < 2 or not 100 <= self.resamples <= 100_000:
            raise ValueError(
                f"fewest_cases {self.fewest_cases} must be 2 or more and resamples {self.resamples} 100 to 100000."
            )


@dataclass(frozen=True)
class LabelChange:
    """A label before and after.

    Attributes:
        label: name of the structure.
        cases: on which both models were measured.
        dice: mean of the new model over the cases that have the structure, all if none has.
        old_dice: mean of the old one.
        hd95: mean of the new model over the cases on which both have a finite one; None if there is none.
        old_hd95: of the old one over the same cases.
        missed: cases on which the new model's HD95 is infinite or its Dice next to nothing.
        old_missed: likewise, the old one's.
    """

    label: str
    cases: int
    dice: float
    old_dice: float
    hd95: float | None
    old_hd95: float | None
    missed: int
    old_missed: int

    @property
    def gain(self) -> float:
        return self.dice - self.old_dice


@dataclass(frozen=True)
class Verdict:
    """What the gate says.

    Attributes:
        accepted: whether to serve the candidate.
        reason: for the radiologist.
        cases: compared ones; 0 where nothing could be compared.
        gain: of the mean Dice.
        interval: of that gain; None with too few cases.
        hd95_gain: change of the mean HD95, positive is worse; None where no case has a finite one in both.
        labels: one row per label.
    """

    accepted: bool
    reason: str
    cases: int = 0
    gain: float | None = None
    interval: tuple[float, float] | None = None
    hd95_gain: float | None = None
    labels: tuple[LabelChange, ...] = ()


def compare(
    candidate: Sequence[CaseScore],
    served: Sequence[CaseScore],
    config: GateConfig | None = None,
    rival: str = "the served version",
) -> Verdict:
    """Whether the candidate takes the place of what is served. What cannot be compared is rejected, never raised.

    Args:
        candidate: scores on the fixed validation cases.
        served: those of the model in use on the same cases, or of the untrained method if none is.
        config: limits.
        rival: what `served` is called in the reason.
    """
    config = config or GateConfig()
    if fault := _fault(candidate, "the candidate") or _fault(served, rival) or _mismatch(candidate, served, rival):
        return Verdict(False, f"Not served, because it cannot be compared: {fault} {_sentence(rival)} stays in use.")
    dice, hd95 = tables(candidate, served)
    if (there := present(candidate)).any():
        dice[:, ~there] = np.nan
    gain, interval = _mean_and_interval(dice[0] - dice[1], config)
    hd95[:, ~np.isfinite(hd95).all(0)] = np.nan
    both = bool((~np.isnan(hd95)).any())
    rise, rise_interval = _mean_and_interval(hd95[0] - hd95[1], config) if both else (None, None)
    old_hd95 = _mean_and_interval(hd95[1], config)[0] if both else 0.0
    labels = label_changes(candidate, served)

    missed, old_missed = sum(c.missed for c in labels), sum(c.old_missed for c in labels)
    cleaner = missed < old_missed and gain >= -config.smallest_gain
    faults = []
    if gain <= config.smallest_gain and not cleaner:
        faults.append("the mean Dice " + ("is lower" if gain < -config.smallest_gain else "is not higher"))
    elif interval and interval[0] < -(risk := max(config.tolerance, gain)):
        faults.append(f"the cases differ so much that a loss of more than {risk:.2f} cannot be excluded")
    certain = interval is not None and interval[0] > 0
    for column, c in enumerate(labels):
        if c.gain >= -config.label_drop:
            continue
        _, change = _mean_and_interval((dice[0] - dice[1])[:, [column]], config)
        if not (certain and change and change[1] >= 0):
            faults.append(f"{c.label} falls from Dice {c.old_dice:.3f} to {c.dice:.3f} on {_count(c.cases)}")
    if missed > old_missed and not _by_chance(candidate, served, config):
        faults.append(f"structures are missed, or seen where there are none, {missed} times instead of {old_missed}")
    limit = max(config.hd95_least, config.hd95_rise * old_hd95)
    if rise is not None and rise > limit and (rise_interval is None or rise_interval[0] > 0):
        faults.append(f"outlines lie further off, HD95 {old_hd95 + rise:.1f} instead of {old_hd95:.1f}")

    cases = dice.shape[1]
    facts = _facts(labels, gain, interval, cases, config)
    reason = (
        f"Not served, {rival} stays in use: {'; '.join(faults)}. {facts}" if faults else f"Better than {rival}. {facts}"
    )
    return Verdict(not faults, reason, cases, gain, interval, rise, labels)


def label_changes(new: Sequence[CaseScore], old: Sequence[CaseScore]) -> tuple[LabelChange, ...]:
    """Means of each label over the cases that both have, by name of the label."""
    before = {(s.case, s.label): s for s in old}
    pairs = [(s, before[s.case, s.label]) for s in new if (s.case, s.label) in before]
    rows = []
    for label in sorted({s.label for s, _ in pairs}):
        mine = [pair for pair in pairs if pair[0].label == label]
        there = [pair for pair in mine if pair[0].present] or mine
        finite = [(a.hd95, b.hd95) for a, b in mine if math.isfinite(a.hd95) and math.isfinite(b.hd95)]
        hd95, old_hd95 = np.mean(finite, axis=0).tolist() if finite else (None, None)
        dice, old_dice = np.mean([(a.dice, b.dice) for a, b in there], axis=0).tolist()
        missed, old_missed = (sum(_is_missed(pair[side]) for pair in mine) for side in (0, 1))
        rows.append(LabelChange(label, len(mine), dice, old_dice, hd95, old_hd95, missed, old_missed))
    return tuple(rows)


def _is_missed(score: CaseScore) -> bool:
    """Nothing found, or something else: a mask that hardly touches the structure is no better than none."""
    return math.isinf(score.hd95) or score.dice < _FOUND


def _mean_and_interval(values: np.ndarray, config: GateConfig) -> tuple[float, tuple[float, float] | None]:
    return bootstrap(values, config.fewest_cases, config.resamples, config.confidence, config.seed)


def _by_chance(candidate: Sequence[CaseScore], served: Sequence[CaseScore], config: GateConfig) -> bool:
    """Whether the cases that are missed more often could as well be others."""
    before = {(s.case, s.label): _is_missed(s) for s in served}
    more: dict[str, int] = {}
    for s in candidate:
        more[s.case] = more.get(s.case, 0) + _is_missed(s) - before[s.case, s.label]
    _, interval = _mean_and_interval(np.array(list(more.values()), float)[:, None], config)
    return interval is None or interval[0] <= 0


def _fault(scores: Sequence[CaseScore], whose: str) -> str:
    """Why these scores cannot be used, or ""."""
    if not scores:
        return f"there are no scores of {whose}. Add labelled cases to validate on."
    if wrong := [s for s in scores if not (0 <= s.dice <= 1 and s.hd95 >= 0)]:  # NaN fails both
        first = wrong[0]
        return (
            f"{len(wrong)} of {len(scores)} scores of {whose} are not numbers in their range, first {first.case} "
            f"({first.label}: Dice {first.dice}, HD95 {first.hd95})."
        )
    (case, label), times = Counter((s.case, s.label) for s in scores).most_common(1)[0]
    return f"{case} has {times} scores of {whose} for {label}." if times > 1 else ""


def _mismatch(candidate: Sequence[CaseScore], served: Sequence[CaseScore], rival: str) -> str:
    new, old = ({(s.case, s.label) for s in scores} for scores in (candidate, served))
    if not (differing := sorted(new ^ old)):
        return ""
    case, label = differing[0]
    holder = "the candidate" if (case, label) in new else rival
    return (
        f"the validation cases differ. {len(differing)} scores have no partner, the first is {label} on {case}, which "
        f"only {holder} has. Score both on the same cases."
    )


def _facts(
    labels: Sequence[LabelChange],
    gain: float,
    interval: tuple[float, float] | None,
    cases: int,
    config: GateConfig,
) -> str:
    old = float(np.mean([c.old_dice for c in labels]))
    text = f"Mean Dice {old + gain:.3f} instead of {old:.3f} ({gain:+.3f}"
    if interval:
        text += f", {config.confidence:.0%} interval {interval[0]:+.3f} to {interval[1]:+.3f}"
    text += f") on {_count(cases)}."
    if len(labels) > 1:
        best, worst = max(labels, key=lambda c: c.gain), min(labels, key=lambda c: c.gain)
        text += f" Best change: {best.label} {best.gain:+.3f}; worst: {worst.label} {worst.gain:+.3f}."
    if interval is None:
        text += f" This rests on {_count(cases)} only, too few to tell a gain from chance; add labelled cases."
    return text


def _count(cases: int) -> str:
    return f"{cases} validation case{'s' if cases != 1 else ''}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
