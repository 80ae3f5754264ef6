"""Gains over the row that a row builds on: paired by patient, with intervals that say what is by chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from segmed.benchmark.significance import gains


def _result(dice: Sequence[float], label: int = 1) -> dict[str, Any]:
    """One image per patient with 1000 true and 1000 found pixels."""
    rows = [
        [f"p{n}", label, round(1000 * d), *[1000 - round(1000 * d)] * 2, 9000, 1.0, 0.9, 2.0]
        for n, d in enumerate(dice)
    ]
    return {"sets": {"": {"slices": [], "whole": [*rows, ["p0", 0, 5, 5, 5, 5, None, None, None]]}}}


BASE = [0.5, 0.9, 0.3, 0.7, 0.6, 0.8]


def test_a_gain_on_every_patient_is_significant_although_patients_differ() -> None:
    better = [d + 0.02 + 0.001 * n for n, d in enumerate(BASE)]
    gain = gains({"sam": [_result(BASE)], "featup": [_result(better)]})[0]
    assert (gain.entry, gain.base, gain.patients) == ("featup", "sam", 6)
    assert gain.mean == pytest.approx(0.0225, abs=1e-3)
    assert gain.interval is not None
    assert gain.interval[0] > 0
    assert "includes 0" not in gain.text()


def test_a_gain_by_one_patient_is_not() -> None:
    other = [*BASE[:-1], 1.0]
    gain = gains({"sam": [_result(BASE)], "gafl": [_result(other), _result(other)]})[0]
    assert gain.mean == pytest.approx(0.2 / 6)
    assert "includes 0" in gain.text()


def test_few_patients_have_no_interval_and_other_patients_no_gain() -> None:
    found = gains({"a": [_result(BASE[:3])], "b": [_result(BASE[1:4])], "c": [_result(BASE, 2)], "d": []})
    assert [g.entry for g in found] == ["b"]
    assert found[0].interval is None
    assert "too few patients" in found[0].text()


def test_rows_are_compared_with_the_row_that_they_build_on() -> None:
    rows = {name: [_result([d + step for d in BASE])] for name, step in (("a", 0), ("b", 0.1), ("c", 0.05))}
    found = gains(rows, {"a": "", "b": "a", "c": "b"})
    assert [(g.entry, g.base) for g in found] == [("b", "a"), ("c", "b")]
    assert found[1].mean == pytest.approx(-0.05)
    assert found[1].text().startswith("c against b: -0.050, 95 % interval")
    del rows["b"]
    assert [(g.entry, g.base) for g in gains(rows, {"c": "b"})] == [("c", "a")], "b was not measured"
    assert gains(rows, {"a": "c"})[0].base == "c"
