"""Drift in the report: seen where it begins, and not told of few images."""

from __future__ import annotations

import math

import numpy as np
import pytest
from report_clinic import DAY, NOON, Clinic, rows_of
from segmed.active.drift import DriftConfig
from segmed.active.store.drift_history import EMBEDDING, drift_history
from segmed.reports.html import render


def test_drift_is_seen_where_it_begins() -> None:
    generator = np.random.default_rng(0)
    times = np.arange(120.0)
    values = np.where(times < 90, 0.2, 0.8) + 0.01 * generator.random(120)
    embeddings = generator.standard_normal((120, 4)) + 9 * (times >= 90)[:, None]
    order = generator.permutation(120)
    found = drift_history(times[order], 59, {"entropy": values[order], "jitter": values}, embeddings[order])
    assert [quantity.name for quantity in found] == [EMBEDDING, "entropy"]
    for quantity in found:
        assert sum(window.images for window in quantity.windows) == 120
        reference = [window for window in quantity.windows if window.drift is None]
        assert sum(window.images for window in reference) == 60
        late = [window for window in quantity.windows if window.drift]
        assert [bool(w.drift and w.drift.message) for w in late] == [w.begin >= 90 for w in late]
        assert quantity.overall.message
        assert all(a.end <= b.begin for a, b in zip(quantity.windows, quantity.windows[1:], strict=False))
    medians = [window.quartiles[1] for window in found[1].windows if window.quartiles]
    assert medians[0] == pytest.approx(0.205, abs=0.004) and medians[-1] == pytest.approx(0.805, abs=0.004)


def test_drift_of_few_images_or_of_one_moment_is_not_told() -> None:
    values = {"entropy": np.linspace(0, 1, 40)}
    assert drift_history(range(19), None, {"entropy": np.zeros(19)}, None) == ()
    assert drift_history(range(40), None, {"jitter": np.zeros(40)}, None) == ()
    together = drift_history([5.0] * 40, None, values, None)  # copied in at once, in whatever order
    assert len(together[0].windows) == 1
    assert math.isnan(together[0].overall.size)
    first = drift_history(range(40), None, values, None, DriftConfig(fewest=10))[0]
    assert [window.drift is None for window in first.windows] == [True, False, False, False]


def test_drift_of_the_state_is_shown(clinic: Clinic) -> None:
    images = [f"i{n}" for n in range(60)]
    for n in range(0, 60, 5):
        clinic.clock.now = NOON + n * DAY
        clinic.state.observe(dict.fromkeys(images[: n + 5], "f"), [])
    for n, image in enumerate(images):
        clinic.state.save_scores(
            image, "v1", "f", {"predicted_iou": 0.1 + 0.5 * (n >= 30)}, np.full(3, n / 60)
        )
    page = render(clinic.report())
    rows = rows_of(page, "drift")
    assert len(rows) and "alarm" in page.split('<section id="drift">')[1]
    assert any(row[2:4] == ["10", "0.600"] and row[6] == "alarm" for row in rows if row)
    assert any(row[2:4] == ["10", "0.100"] and row[6] == "reference" for row in rows if row)
