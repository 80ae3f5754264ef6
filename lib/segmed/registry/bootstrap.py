"""Tables of scores by case and label, and bootstrap intervals of their means.

Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segmed.evaluation.case_scores import CaseScore


def tables(*models: Sequence[CaseScore]) -> tuple[np.ndarray, np.ndarray]:
    """Tables of Dice and HD95, (models, cases, labels), NaN where a case does not have the label."""
    rows = {case: n for n, case in enumerate(sorted({s.case for s in models[0]}))}
    columns = {label: n for n, label in enumerate(sorted({s.label for s in models[0]}))}
    dice, hd95 = np.full((2, len(models), len(rows), len(columns)), np.nan)
    for n, scores in enumerate(models):
        for s in scores:
            place = n, rows[s.case], columns[s.label]
            dice[place], hd95[place] = s.dice, s.hd95
    return dice, hd95


def present(scores: Sequence[CaseScore]) -> np.ndarray:
    """Whether each case has each structure, (cases, labels) in the order of `tables`."""
    cases, labels = sorted({s.case for s in scores}), sorted({s.label for s in scores})
    existing = {(s.case, s.label) for s in scores if s.present}
    return np.array([[(case, label) in existing for label in labels] for case in cases])


def bootstrap(
    values: np.ndarray, fewest: int, resamples: int, confidence: float, seed: int
) -> tuple[float, tuple[float, float] | None]:
    """Mean over cases and then labels, and its percentile interval over resampled cases.

    Args:
        values: Values (cases, labels), NaN where not measured, with at least one number.
        fewest: Smallest number of cases with an interval.
        resamples: Number of resamples.
        confidence: Two-sided confidence of the interval.
        seed: Seed of the draws.
    """
    values = values[~np.isnan(values).all(1)]
    cases = len(values)
    mean = float(_means(values, np.ones((1, cases)))[0])
    if cases < fewest:
        return mean, None
    # Drawing cases with replacement is the same as weighting each by the number of times it is drawn, (R,
    # cases).
    draws = np.random.default_rng(seed).multinomial(cases, np.full(cases, 1 / cases), size=resamples)
    tail = (1 - confidence) / 2
    low, high = np.quantile(_means(values, draws), [tail, 1 - tail])
    return mean, (float(low), float(high))


def _means(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted means over cases, then labels of drawn cases: (cases, labels) and (R, cases) → (R,)."""
    measured = ~np.isnan(values)
    counts = weights @ measured
    sums = weights @ np.nan_to_num(values)
    return np.nanmean(np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0), axis=1)
