"""Tables of the benchmark and their numbers: published versions, means, spreads, pooling."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from segmed.benchmark.numbers import compared, rows_of
from segmed.benchmark.published import Published
from segmed.benchmark.tables import TABLES
from segmed.data.datasets.catalogue import DATASETS
from segmed.methods import METHODS


def test_all_versions_of_a_published_number_stand_beside_ours() -> None:
    table = TABLES["lgg-sam"]
    found = {(c.entry, c.metric): c for c in compared(table.published, [])}
    assert [v.value for v in found["gafl", "iou"].published] == [0.9245, 0.7004]
    assert "Table III" in found["gafl", "dice"].odd
    assert "Table IV" not in found["gafl", "dice"].odd
    assert found["sam", "dice"].odd.startswith("below the IoU of Table II")
    averages = {v.entry: v.value for v in TABLES["flare22"].published if v.metric == "dice_with_background"}
    for entry, average in averages.items():
        organs = [
            v.value for v in TABLES["flare22"].published if v.entry == entry and v.metric.startswith("dice:")
        ]
        assert len(organs) == 14
        assert np.mean(organs) == pytest.approx(average, abs=1e-4)


def test_every_table_names_what_exists() -> None:
    for table in TABLES.values():
        assert not table.dataset or table.dataset in DATASETS
        assert all(other.dataset in DATASETS for other in table.external_tests)
        assert len({entry.name for entry in table.entries}) == len(table.entries)
        assert not [entry.name for entry in table.entries if "," in entry.name], (
            "--methods separates by commas"
        )
        classes = set(DATASETS[table.dataset].labels.values()) | {"background"} if table.dataset else set()
        for entry in table.entries:
            training = METHODS[entry.method].training
            if entry.train:
                assert training is not None
                training.config(**entry.settings)
        named = {v.metric.removeprefix("dice:") for v in table.published if v.metric.startswith("dice:")}
        assert named <= classes, table.name


def test_means_spreads_and_pooling_over_seeds() -> None:
    def result(*rows: tuple[int, ...]) -> dict[str, Any]:
        packed = [
            [n, *row, *((1.0, 0.9, 2.0) if row[1] else ("inf", 0, "inf"))] for n, row in enumerate(rows)
        ]
        sets = {"": {"slices": packed, "whole": packed}}
        facts = {
            "classes": {"1": "polyp"},
            "parameters": 2_000_000,
            "trainable": 0,
            "slices": [0, 0, len(rows)],
        }
        return {"sets": sets, "seconds": 1.0, "model_seconds": 0.8, **facts}

    # label, tp, fp, fn, tn
    row = rows_of(
        "x", [result((1, 8, 2, 2, 88), (1, 0, 0, 10, 90)), result((1, 6, 2, 2, 90), (1, 10, 0, 0, 90))]
    )[0]
    assert row.values["dice"].mean == pytest.approx((0.4 + 0.875) / 2)
    assert row.values["dice"].spread == pytest.approx(abs(0.4 - 0.875) / 2**0.5)
    assert row.values["dice_pooled"].mean == pytest.approx(48 / (48 + 4 + 14))
    assert row.values["iou_pooled"].mean == pytest.approx(24 / (24 + 4 + 14))
    assert (row.identities, row.violations) == (4 + 2 + 1 + 1, 0)
    assert row.values["parameters"].mean == 2
    assert [row.values[key].mean for key in ("nsd", "hd95", "hd")] == pytest.approx([0.675, 1, 2])
    ours = compared((Published("x", "f1", 0.5, "Table 1"),), [row])[0].ours
    assert ours == row.values["dice"]
    assert "dice_whole" not in row.values, "every slice is an image"
    volume = result((1, 8, 2, 2, 88), (1, 0, 0, 10, 90))
    volume["sets"][""]["whole"] = [["patient", 1, 8, 2, 12, 178, 1.0, 0.9, 2.0]]
    assert rows_of("x", [volume])[0].values["dice_whole"].mean == pytest.approx(16 / 30)
