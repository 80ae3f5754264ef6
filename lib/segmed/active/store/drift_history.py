"""The history of drift: scores and embeddings in the order of arrival, compared with those of the training.

The reference is the images that arrived before the last retraining, as for the alarm of the server; before
the first retraining, it is those that arrived first. The order is cut into windows. Each window after the
reference is compared with it by the tests of `drift`; one in a hundred windows raises a false alarm."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from segmed.active.drift import Drift, DriftConfig, embedding_drift, score_drift

EMBEDDING = "embedding"
_SHOWN = ("predicted_iou", "entropy")
_WINDOWS = 8  # of the reference and after it, at most
_MOST = 200  # images of a side in the test of a window


@dataclass(frozen=True)
class DriftWindow:
    """A window of images that arrived one after the other.

    Attributes:
        begin: Arrival of the first image, in seconds since 1970.
        end: Arrival of the last image, in seconds since 1970.
        images: Number of images.
        quartiles: Quartiles of the quantity; None where no image has it.
        drift: Drift from the reference; None for windows that belong to it.
    """

    begin: float
    end: float
    images: int
    quartiles: tuple[float, float, float] | None
    drift: Drift | None


@dataclass(frozen=True)
class DriftQuantity:
    """One quantity over time.

    Attributes:
        name: `embedding`, or the name of a score. For embeddings, the distance from the mean of the reference
            is shown, in units of its median there, while the embeddings themselves are tested.
        windows: Windows in the order of time.
        overall: Drift of all images after the reference, which raises the alarm.
    """

    name: str
    windows: tuple[DriftWindow, ...]
    overall: Drift


def drift_history(
    arrived: Sequence[float],
    trained: float | None,
    scores: Mapping[str, np.ndarray],
    embeddings: np.ndarray | None,
    config: DriftConfig | None = None,
) -> tuple[DriftQuantity, ...]:
    """Cut the images into windows and compare these with the reference.

    Args:
        arrived: Arrival of each image, in seconds since 1970.
        trained: Time at which the last retraining began, in seconds since 1970; None if there was none.
        scores: Scores (N,) by quantity, NaN where unknown.
        embeddings: Embeddings (N, D), rows of NaN where unknown; or None.
        config: Limits of drift.

    Returns:
        The history of each quantity that any image has; empty if the images are too few for two windows.
    """
    config = config or DriftConfig()
    times = np.asarray(arrived, float)
    order = np.argsort(times, kind="stable")
    if len(order) < 2 * config.fewest:
        return ()
    if trained is None:
        share = max(2, min(_WINDOWS, len(order) // config.fewest))
        trained = float(times[order[len(order) // share - 1]])  # images that came together stay together
    reference, late = order[times[order] <= trained], order[times[order] > trained]
    before, after = (_windows(part, times, config.fewest) for part in (reference, late))
    tests: dict[str, tuple[np.ndarray, Callable[[np.ndarray, np.ndarray], Drift]]] = {}
    if embeddings is not None:
        rows = embeddings
        tests[EMBEDDING] = _distance(rows, reference), lambda a, b: embedding_drift(rows[a], rows[b], config)
    for name in _SHOWN:
        if name in scores:
            tests[name] = scores[name], lambda a, b, v=scores[name]: score_drift(v[a], v[b], config)  # type: ignore[misc]
    found = []
    for name, (values, test) in tests.items():
        if np.isfinite(values).any():
            windows = [_window(times, w, values, None) for w in before]
            windows += [_window(times, w, values, test(_few(reference), _few(w))) for w in after]
            found.append(DriftQuantity(name, tuple(windows), test(reference, late)))
    return tuple(found)


def _windows(part: np.ndarray, times: np.ndarray, fewest: int) -> list[np.ndarray]:
    count = min(_WINDOWS, len(part) // fewest, len(np.unique(times[part])))
    return [window for window in np.array_split(part, max(1, count)) if len(window)]


def _few(part: np.ndarray) -> np.ndarray:
    """An evenly spaced selection of the rows: large samples take seconds, and small effects do not matter."""
    return part if len(part) <= _MOST else part[np.linspace(0, len(part) - 1, _MOST).astype(int)]


def _window(times: np.ndarray, rows: np.ndarray, values: np.ndarray, drift: Drift | None) -> DriftWindow:
    known = values[rows][np.isfinite(values[rows])]
    quartiles = None
    if len(known):
        low, middle, high = (float(v) for v in np.quantile(known, (0.25, 0.5, 0.75)))
        quartiles = low, middle, high
    return DriftWindow(float(times[rows[0]]), float(times[rows[-1]]), len(rows), quartiles, drift)


def _distance(embeddings: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Distance (N,) from the mean of the reference, 1 for its median image; NaN without an embedding."""
    known = embeddings[reference][np.isfinite(embeddings[reference]).all(1)]
    if not len(known):
        return np.full(len(embeddings), np.nan)
    distance = np.linalg.norm(embeddings.astype(float) - known.mean(0, dtype=float), axis=1)
    usual = float(np.nanmedian(distance[reference]))
    return distance / usual if usual else distance
