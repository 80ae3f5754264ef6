"""Tests for drift: whether recent images differ from those that the model was trained and evaluated on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

_MOST = 500  # embeddings of each side; enough for the smallest effect that is reported


@dataclass(frozen=True)
class DriftConfig:
    """Limits of drift, which has to be both significant and large.

    Attributes:
        level: Level of significance; one of 1/level measurements raises a false alarm.
        energy: Least energy coefficient, in [0, 1].
        distance: Least distance of the distribution functions of scores, in [0, 1].
        fewest: Least number of images on each side; with fewer, nothing is measured.
        permutations: Number of permutations of the test.
        seed: Seed of the permutations.
    """

    level: float = 0.01
    energy: float = 0.05
    distance: float = 0.3
    fewest: int = 10
    permutations: int = 999
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.level < 1 or self.permutations < 1 / self.level - 1:
            raise ValueError(
                f"level {self.level} must be in (0, 1) and permutations {self.permutations} at least 1/level "
                "- 1, otherwise no result is significant."
            )
        if not (0 <= self.energy <= 1 and 0 <= self.distance <= 1) or self.fewest < 2:
            raise ValueError(
                f"energy {self.energy} and distance {self.distance} must be in [0, 1], fewest {self.fewest} "
                f"2 or more."
            )


@dataclass(frozen=True)
class Drift:
    """A measurement of drift.

    Attributes:
        size: Effect size in [0, 1]; NaN if there are too few images.
        threshold: Effect size from which an alarm is raised.
        p: Share of random divisions into two sides that differ as much.
        message: Description of the drift; "" if there is none.
    """

    size: float
    threshold: float
    p: float
    message: str = ""


def embedding_drift(reference: np.ndarray, recent: np.ndarray, config: DriftConfig | None = None) -> Drift:
    """Energy distance of two sets of embeddings, with a permutation test.

    Source: Székely and Rizzo, Energy statistics: A class of statistics based on distances (2013). The test
    measures every difference of the distributions, not only of their means. From more than 500 embeddings, a
    sample of 500 is taken.

    Args:
        reference: Embeddings (N, D) by one model version.
        recent: Embeddings (M, D) by the same version.
        config: Limits of drift.

    Raises:
        ValueError: The embeddings have different lengths.
    """
    config = config or DriftConfig()
    generator = np.random.default_rng(config.seed)
    sides = [_finite_rows(side, generator) for side in (reference, recent)]
    if min(len(side) for side in sides) < config.fewest:
        return Drift(math.nan, config.energy, math.nan)
    if sides[0].shape[1] != sides[1].shape[1]:
        raise ValueError(
            f"Embeddings of {sides[0].shape[1]} and {sides[1].shape[1]} values cannot be compared; use those "
            "of one model version."
        )
    everything = np.concatenate(sides)
    table = cdist(everything, everything)
    # first (P + 1, N + M): membership of the first side, row 0 as measured, the others permuted.
    # energy = 2 E|x - y| - E|x - x'| - E|y - y'|, from sums over the table (N + M, N + M) of distances
    first = np.zeros((config.permutations + 1, len(everything)))
    first[0, : len(sides[0])] = 1
    for row in first[1:]:
        row[generator.permutation(len(everything))[: len(sides[0])]] = 1
    n, m = len(sides[0]), len(sides[1])
    sums_to_first = first @ table
    within_first, cross = (sums_to_first * first).sum(1), (sums_to_first * (1 - first)).sum(1)
    within_second = table.sum() - within_first - 2 * cross
    energy = 2 * cross / (n * m) - within_first / n**2 - within_second / m**2
    # Székely and Rizzo's coefficient, energy / (2 mean distance across)
    size = np.divide(energy * n * m, 2 * cross, out=np.zeros_like(energy), where=cross > 0)
    p = float((energy >= energy[0] - 1e-12).mean())
    threshold = max(config.energy, float(np.quantile(size, 1 - config.level)))
    drifted = p <= config.level and size[0] >= config.energy
    message = f"Recent images differ from earlier ones (energy coefficient {size[0]:.2f}, p = {p:.3f})."
    return Drift(float(size[0]), threshold, p, message if drifted else "")


def score_drift(reference: np.ndarray, recent: np.ndarray, config: DriftConfig | None = None) -> Drift:
    """Kolmogorov-Smirnov test of two sets of scores, such as the predicted IoU or the Dice of proposals.

    Args:
        reference: Scores (N,); NaN is left out.
        recent: Scores (M,); NaN is left out.
        config: Limits of drift.
    """
    config = config or DriftConfig()
    sides = [np.asarray(side, float)[np.isfinite(side)] for side in (reference, recent)]
    if min(len(side) for side in sides) < config.fewest:
        return Drift(math.nan, config.distance, math.nan)
    from scipy.stats import ks_2samp  # half a second, and tests are made once a day at most

    test = ks_2samp(*sides)
    size, p = float(test.statistic), float(test.pvalue)
    drifted = p <= config.level and size >= config.distance
    middle = [float(np.median(side)) for side in sides]
    message = (
        f"Recent scores differ from earlier ones (median {middle[1]:.2f} instead of {middle[0]:.2f}, p "
        f"= {p:.1g})."
    )
    return Drift(size, config.distance, p, message if drifted else "")


def _finite_rows(points: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    points = np.asarray(points, float)
    rows = points[np.isfinite(points).all(1)]
    return rows if len(rows) <= _MOST else rows[generator.choice(len(rows), _MOST, replace=False)]
