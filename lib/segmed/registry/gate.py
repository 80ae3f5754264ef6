"""The gate: a candidate is served only if it is better than the served model on the same validation cases.

The unit of the statistics is the case, because slices of one patient are similar and would make a random gain
look significant. Differences are computed case by case and resampled (Efron and Tibshirani, An Introduction
to the Bootstrap, 1993). Means are taken over the cases that have a label and then over labels, so that small
organs count as much as large ones, and a model that never finds anything does not profit from cases without
the structure.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segmed.evaluation.case_scores import CaseScore
from segmed.registry.bootstrap import bootstrap, present, tables
from segmed.registry.gate_config import GateConfig

_FOUND = 0.05  # smallest Dice at which a structure counts as found


@dataclass(frozen=True)
class LabelChange:
    """The scores of a label by the old and the new model.

    Attributes:
        label: Name of the structure.
        cases: Number of cases on which both models were measured.
        dice: Mean Dice of the new model over the cases that have the structure, or over all if none has.
        old_dice: Mean Dice of the old model over the same cases.
        hd95: Mean HD95 of the new model in mm over the cases where both models have a finite one; None if
            there is none.
        old_hd95: Mean HD95 of the old model in mm over the same cases.
        missed: Number of cases on which the new model's HD95 is infinite or its Dice is below 0.05.
        old_missed: The same number for the old model.
        nsd: Mean normalised surface Dice of the new model at 2 mm over the cases of `dice`; None if one of
            the models was stored before it was measured.
        old_nsd: The same mean for the old model.
    """

    label: str
    cases: int
    dice: float
    old_dice: float
    hd95: float | None
    old_hd95: float | None
    missed: int
    old_missed: int
    nsd: float | None = None
    old_nsd: float | None = None

    @property
    def gain(self) -> float:
        """Gain of the mean Dice."""
        return self.dice - self.old_dice


@dataclass(frozen=True)
class Verdict:
    """The decision of the gate.

    Attributes:
        accepted: Whether to serve the candidate.
        reason: The reason, for the radiologist.
        cases: Number of compared cases; 0 if nothing could be compared.
        gain: Gain of the mean Dice.
        interval: Confidence interval of that gain; None with too few cases.
        hd95_gain: Change of the mean HD95 in mm, positive if worse; None if no case has a finite one in both.
        labels: One row per label.
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
    """Decide whether a candidate replaces the served model; scores that cannot be compared lead to rejection.

    Args:
        candidate: Scores on the fixed validation cases.
        served: Scores of the served model on the same cases, or of the untrained method if none is served.
        config: The limits, or None for their default values.
        rival: Name of the served model in the reason.
    """
    config = config or GateConfig()
    if (
        fault := _fault(candidate, "the candidate")
        or _fault(served, rival)
        or _mismatch(candidate, served, rival)
    ):
        return Verdict(
            False, f"Not served, because it cannot be compared: {fault} {_sentence(rival)} stays in use."
        )
    dice, hd95 = tables(candidate, served)
    if (has_label := present(candidate)).any():
        dice[:, ~has_label] = np.nan
    gain, interval = _mean_and_interval(dice[0] - dice[1], config)
    hd95[:, ~np.isfinite(hd95).all(0)] = np.nan
    both = bool((~np.isnan(hd95)).any())
    rise, rise_interval = _mean_and_interval(hd95[0] - hd95[1], config) if both else (None, None)
    old_hd95 = _mean_and_interval(hd95[1], config)[0] if both else 0.0
    labels = label_changes(candidate, served)

    missed, old_missed = sum(c.missed for c in labels), sum(c.old_missed for c in labels)
    faults = _dice_faults(gain, interval, missed < old_missed, config)
    faults += _label_faults(labels, dice[0] - dice[1], interval is not None and interval[0] > 0, config)
    if missed > old_missed and not _by_chance(candidate, served, config):
        faults.append(
            f"structures are missed, or seen where there are none, {missed} times instead of {old_missed}"
        )
    limit = max(config.hd95_least, config.hd95_rise * old_hd95)
    if rise is not None and rise > limit and (rise_interval is None or rise_interval[0] > 0):
        faults.append(f"outlines lie further off, HD95 {old_hd95 + rise:.1f} instead of {old_hd95:.1f}")

    cases = dice.shape[1]
    facts = _facts(labels, gain, interval, cases, config)
    reason = (
        f"Not served, {rival} stays in use: {'; '.join(faults)}. {facts}"
        if faults
        else f"Better than {rival}. {facts}"
    )
    return Verdict(not faults, reason, cases, gain, interval, rise, labels)


def narrower(lost: Sequence[str], rival: str) -> Verdict:
    """The verdict on a candidate that does not know structures of the served model, whatever its scores."""
    return Verdict(
        False,
        f"Not served, {rival} stays in use: {', '.join(lost)} would not be segmented any more. Train with "
        "all structures, or promote this version by hand.",
    )


def _dice_faults(
    gain: float, interval: tuple[float, float] | None, fewer_missed: bool, config: GateConfig
) -> list[str]:
    """The faults of a candidate's mean Dice."""
    cleaner = fewer_missed and gain >= -config.smallest_gain
    if gain <= config.smallest_gain and not cleaner:
        return ["the mean Dice " + ("is lower" if gain < -config.smallest_gain else "is not higher")]
    if interval and interval[0] < -(risk := max(config.tolerance, gain)):
        return [f"the cases differ so much that a loss of more than {risk:.2f} cannot be excluded"]
    return []


def _label_faults(
    labels: Sequence[LabelChange], gains: np.ndarray, certain: bool, config: GateConfig
) -> list[str]:
    """The labels whose mean falls too much; `certain` means that the mean gain is significant."""
    faults = []
    for column, c in enumerate(labels):
        if c.gain >= -config.label_drop:
            continue
        _, change = _mean_and_interval(gains[:, [column]], config)
        if not (certain and change and change[1] >= 0):
            faults.append(f"{c.label} falls from Dice {c.old_dice:.3f} to {c.dice:.3f} on {_count(c.cases)}")
    return faults


def label_changes(new: Sequence[CaseScore], old: Sequence[CaseScore]) -> tuple[LabelChange, ...]:
    """Compute the means of each label over the cases that both models have, sorted by name of the label."""
    before = {(s.case, s.label): s for s in old}
    pairs = [(s, before[s.case, s.label]) for s in new if (s.case, s.label) in before]
    rows = []
    for label in sorted({s.label for s, _ in pairs}):
        mine = [pair for pair in pairs if pair[0].label == label]
        with_label = [pair for pair in mine if pair[0].present] or mine
        finite = [(a.hd95, b.hd95) for a, b in mine if math.isfinite(a.hd95) and math.isfinite(b.hd95)]
        hd95, old_hd95 = np.mean(finite, axis=0).tolist() if finite else (None, None)
        dice, old_dice = np.mean([(a.dice, b.dice) for a, b in with_label], axis=0).tolist()
        missed, old_missed = (sum(_is_missed(pair[side]) for pair in mine) for side in (0, 1))
        nsd = [(a.nsd, b.nsd) for a, b in with_label if a.nsd is not None and b.nsd is not None]
        surfaces = np.mean(nsd, axis=0).tolist() if nsd else (None, None)
        rows.append(
            LabelChange(label, len(mine), dice, old_dice, hd95, old_hd95, missed, old_missed, *surfaces)
        )
    return tuple(rows)


def _is_missed(score: CaseScore) -> bool:
    """Whether a structure is missed: a mask that hardly overlaps it counts as none."""
    return math.isinf(score.hd95) or score.dice < _FOUND


def _mean_and_interval(values: np.ndarray, config: GateConfig) -> tuple[float, tuple[float, float] | None]:
    return bootstrap(values, config.fewest_cases, config.resamples, config.confidence, config.seed)


def _by_chance(candidate: Sequence[CaseScore], served: Sequence[CaseScore], config: GateConfig) -> bool:
    """Whether the rise of missed structures is not significant over the cases."""
    before = {(s.case, s.label): _is_missed(s) for s in served}
    more: dict[str, int] = {}
    for s in candidate:
        more[s.case] = more.get(s.case, 0) + _is_missed(s) - before[s.case, s.label]
    _, interval = _mean_and_interval(np.array(list(more.values()), float)[:, None], config)
    return interval is None or interval[0] <= 0


def _fault(scores: Sequence[CaseScore], whose: str) -> str:
    """The reason why scores cannot be used, or ""."""
    if not scores:
        return f"there are no scores of {whose}. Add labelled cases to validate on."
    if wrong := [s for s in scores if not (0 <= s.dice <= 1 and s.hd95 >= 0)]:  # NaN fails both
        first = wrong[0]
        return (
            f"{len(wrong)} of {len(scores)} scores of {whose} are not numbers in their range, first "
            f"{first.case} ({first.label}: Dice {first.dice}, HD95 {first.hd95})."
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
        f"the validation cases differ. {len(differing)} scores have no partner, the first is {label} on "
        f"{case}, which only {holder} has. Score both on the same cases."
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
        text += (
            f" This rests on {_count(cases)} only, too few to tell a gain from chance; add labelled cases."
        )
    return text


def _count(cases: int) -> str:
    return f"{cases} validation case{'s' if cases != 1 else ''}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
