"""Means by case, source and modality, their intervals, and tables."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from segmed.evaluation.score_tree import (
    ObjectScore,
    as_json,
    group_table,
    modality_means,
    modality_table,
    overall,
    source_table,
)


def _score(modality: str, source: str, case: str, share: float = 0.1, **values: float) -> ObjectScore:
    return ObjectScore(modality, source, case, share=share, values=values)


# ct: source a has the cases 1 (1.0, 0.0 → .5) and 2 (.7); source b one case of .2; mr: one of .9
SCORES = [
    _score("ct", "a", "1", box=1.0),
    _score("ct", "a", "1", box=0.0),
    _score("ct", "a", "2", box=0.7),
    _score("ct", "b", "1", box=0.2),
    _score("mr", "c", "1", 0.3, box=0.9, click=0.5),
]


def test_objects_count_within_cases_cases_within_sources_and_sources_within_modalities() -> None:
    assert modality_means(SCORES, "box") == pytest.approx({"ct": ((0.5 + 0.7) / 2 + 0.2) / 2, "mr": 0.9})
    assert overall(SCORES, "box").value == pytest.approx((0.4 + 0.9) / 2)


def test_what_was_not_measured_does_not_count() -> None:
    assert modality_means(SCORES, "click") == {"mr": 0.5}
    assert math.isnan(overall(SCORES, "scribble").value)
    more = [*SCORES, _score("ct", "b", "2", box=math.nan)]
    assert modality_means(more, "box") == modality_means(SCORES, "box")


def test_the_interval_holds_the_mean_is_repeatable_and_gets_narrower_with_cases() -> None:
    generator = np.random.default_rng(0)

    def scores(count: int) -> list[ObjectScore]:
        return [
            _score("ct", "a", str(n), box=float(v)) for n, v in enumerate(generator.normal(0.7, 0.1, count))
        ]

    few, many = overall(scores(10), "box"), overall(scores(400), "box")
    assert few.low < few.value < few.high
    assert many.high - many.low < (few.high - few.low) / 3
    assert many.high - many.low == pytest.approx(2 * 1.96 * 0.1 / math.sqrt(400), rel=0.2)
    assert overall(SCORES, "box", seed=3) == overall(SCORES, "box", seed=3)
    lone = overall(SCORES[-1:], "box")
    assert (lone.low, lone.value, lone.high) == pytest.approx((0.9, 0.9, 0.9))


def test_redrawn_cases_lose_a_source_rather_than_a_modality() -> None:
    spread = overall([_score("ct", "a", "1", box=0.0), _score("ct", "b", "1", box=1.0)], "box")
    assert (spread.low, spread.value, spread.high) == (0.0, 0.5, 1.0)


def test_tables_hold_the_means() -> None:
    table = modality_table(SCORES, ["box", "click"]).splitlines()
    assert table[0] == "| modality | sources | cases | objects | box | click |"
    assert table[2] == "| ct | 2 | 3 | 4 | 0.400 | – |"
    assert table[3] == "| mr | 1 | 1 | 1 | 0.900 | 0.500 |"
    assert table[4] == "| **mean over modalities** | | | | **0.650** | **0.500** |"
    assert table[5].startswith("| 95 % interval")
    assert "| ct | a | 2 | 3 | 0.600 |" in source_table(SCORES, ["box"])
    groups = group_table(
        SCORES, ["box"], "size", lambda s: "large" if s.share > 0.2 else "small"
    ).splitlines()
    assert groups[2:] == ["| small | 4 | 0.475 |", "| large | 1 | 0.900 |"]


def test_json_holds_every_object_and_no_number_that_json_does_not_know() -> None:
    told = json.loads(json.dumps(as_json(SCORES, ["box", "none"], method="x"), allow_nan=False))
    assert told["method"] == "x" and len(told["objects"]) == 5
    assert told["objects"][4]["values"] == {"box": 0.9, "click": 0.5}
    assert told["mean"]["box"]["value"] == pytest.approx(0.65)
    assert told["mean"]["none"]["value"] is None
    assert told["by_source"]["box"]["ct/a"] == pytest.approx(0.6)
