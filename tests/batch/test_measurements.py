"""Measurements against bodies whose sizes are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from segmed.batch.measurements import COLUMNS, measure


def test_a_ball_on_an_anisotropic_grid() -> None:
    spacing, radius = (1.0, 0.5, 2.0), 15.0
    i, j, k = np.mgrid[:40, :80, :20]
    far = np.sqrt(((i - 20) * 1.0) ** 2 + ((j - 40) * 0.5) ** 2 + ((k - 10) * 2.0) ** 2)
    labels = (far <= radius).astype(np.uint8)
    labels[0, 0, 0] = 1
    image = np.where(labels > 0, 100.0, 5.0)
    image[20, 40, 10] = 300.0
    ball, nothing = measure(labels, image, spacing, {1: "ball", 2: "missing"})
    volume = 4 / 3 * math.pi * radius**3 / 1000
    assert ball["volume_ml"] == pytest.approx(volume, rel=0.02)
    assert ball["voxels"] == int((labels > 0).sum())
    assert ball["longest_axis_mm"] == pytest.approx(2 * radius, rel=0.05)
    assert ball["surface_mm2"] == pytest.approx(4 * math.pi * radius**2, rel=0.2)
    assert ball["components"] == 2
    assert ball["mean_intensity"] == pytest.approx(image[labels > 0].mean())
    assert ball["sd_intensity"] == pytest.approx(image[labels > 0].std())
    assert nothing == dict.fromkeys(COLUMNS) | {
        "label": 2, "name": "missing", "empty": True, "voxels": 0, "volume_ml": 0.0, "components": 0
    }  # fmt: skip


@pytest.mark.parametrize("spacing", [(0.5, 0.5, 3.0), (0.5, 1.0, 3.0)])
def test_a_rectangle_on_one_slice(spacing: tuple[float, float, float]) -> None:
    labels = np.zeros((60, 50, 1), np.uint8)
    labels[10:50, 20:30] = 1
    image = np.stack([np.full(labels.shape, v, np.uint8) for v in (30, 60, 90)], -1)
    (row,) = measure(labels, image, spacing, {1: "box"})
    sides = 40 * spacing[0], 10 * spacing[1]
    assert row["volume_ml"] == pytest.approx(math.prod(sides) * 3 / 1000)
    assert row["surface_mm2"] == pytest.approx(2 * sum(sides) * 3, rel=0.06)
    assert row["mean_intensity"] == 60 and row["sd_intensity"] == 0
    assert row["longest_axis_mm"] > sides[0]


def test_a_single_voxel_has_numbers() -> None:
    labels = np.zeros((3, 3, 3), np.uint8)
    labels[1, 1, 1] = 1
    (row,) = measure(labels, np.ones(labels.shape), (1.0, 1.0, 1.0), {1: "dot"})
    assert row["voxels"] == 1 and row["components"] == 1 and math.isfinite(row["surface_mm2"])
