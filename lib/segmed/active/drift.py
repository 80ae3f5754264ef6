"""Whether the images of late are other ones than those the model was trained and measured on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

_MOST = 500  # of each side; enough for the smallest effect that is reported


@dataclass(frozen=True)
class DriftConfig:
    """What counts as drift: it must be certain, and large.

    Attributes:
        level: of significance; the alarm is raised by chance in one of 1/level measurements.
        energy: least energy coefficient, in [0, 1].
        distance: least distance of the distribution functions of scores, in [0, 1].
        fewest: of images on each side; with fewer nothing is said.
        permutations: of the test.
        seed: likewise.
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
                f"level {self.level} must be in (0, 1) and permutations {self.permutations} at least 1/level - 1, else "
                "no result is certain enough."
            )
        if not (0 <= self.energy <= 1 and 0 <= self.distance <= 1) or self.fewest < 2:
            raise ValueError(
                f"energy {self.energy} and distance {self.distance} must be in [0, 1], fewest {self.fewest} 2 or more."
            )


@dataclass(frozen=True)
class Drift:
    """A measurement.

    Attributes:
        size: effect in [0, 1]; NaN if there are too few images.
        threshold: size from which it is an alarm.
        p: share of random divisions into two sides that differ as much.
        message: a sentence if there is drift, else "".
    """

    size: float
    threshold: float
    p: float
    message: str = ""


def embedding_drift(reference: np.ndarray, recent: np.ndarray, config: DriftConfig | None = None) -> Drift:
    """Energy distance of two sets of embeddings, with a permutation test.

    Source: Székely and Rizzo, Energy statistics: A class of statistics based on distances (2013). Measures every
    difference of the distributions, not only of their means. Of more than 500 a sample of 500 is taken.

    Args:
        reference: (N, D) of one model version.
        recent: (M, D) of the same version.
        config: limits.

    Raises:
        ValueError: the embeddings have different lengths.
    """
    config = config or DriftConfig()
    generator = np.random.default_rng(config.seed)
    sides = [_finite_rows(side, generator) for side in (reference, recent)]
    if min(len(side) for side in sides) < config.fewest:
        return Drift(math.nan, config.energy, math.nan)
    if sides[0].shape[1] != sides[1].shape[1]:
        raise ValueError(
            f"Embeddings of {sides[0].shape[1]} and {sides[1].shape[1]} values cannot be compared; take those of one "
            "model version."
        )
    everything = np.concatenate(sides)
    table = cdist(everything, everything)
    first = np.zeros((config.permutations + 1, len(everything)))
    first[0, : len(sides[0])] = 1
    for row in first[1:]:
        row[generator.permutation(len(everything))[: len(sides[0])]] = 1
    n, m = len(sides[0]), len(sides[1])
    mine = first @ table
    within_first, cross = (mine * first).sum(1), (mine * (1 - first)).sum(1)
    within_second = table.sum() - within_first - 2 * cross
    energy = 2 * cross / (n * m) - within_first / n**2 - within_second / m**2
    # Székely and Rizzo's coefficient, energy / (2 mean distance across)
    size = np.divide(energy * n * m, 2 * cross, out=np.zeros_like(energy), where=cross > 0)
    p = float((energy >= energy[0] - 1e-12).mean())
    threshold = max(config.energy, float(np.quantile(size, 1 - config.level)))
    drifted = p <= config.level and size[0] >= config.energy
    message = f"The images of late differ from those before (energy coefficient {size[0]:.2f}, p = {p:.3f})."
    return Drift(float(size[0]), threshold, p, message if drifted else "")


def score_drift(reference: np.ndarray, recent: np.ndarray, config: DriftConfig | None = None) -> Drift:
    """Kolmogorov and Smirnov's test of two sets of scores, such as the predicted IoU or the Dice of proposals.

    Args:
        reference: (N,) NaN left out.
        recent: (M,) likewise.
        config: limits.
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
        f"The scores of late are others than before (median {middle[1]:.2f} instead of {middle[0]:.2f}, p = {p:.1g})."
    )
    return Drift(size, config.distance, p, message if drifted else "")


def _finite_rows(points: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    points = np.asarray(points, float)
    rows = points[np.isfinite(points).all(1)]
    return rows if len(rows) <= _MOST else rows[generator.choice(len(rows), _MOST, replace=False)]
