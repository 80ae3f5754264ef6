"""Scores as rows of numbers, as they are stored in the result of a job."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from segmed.benchmark.measure import Measured
from segmed.evaluation.metrics import Overlap
from segmed.evaluation.segmentation_scores import ImageScore


def packed(measured: Measured) -> dict[str, list[list[Any]]]:
    """Rows of the scores on slices and in whole images.

    A row has the number of the slice or the patient, the label, tp, fp, fn, tn, HD95, NSD and HD; None for
    NaN, "inf" for infinity.
    """

    def row(name: int | str, score: ImageScore) -> list[Any]:
        counts = [getattr(score.overlap, f.name) for f in fields(Overlap)]
        return [name, score.label, *counts, *map(_packed_number, (score.hd95, score.nsd, score.hd))]

    return {
        "slices": [row(n, score) for n, score in zip(measured.slices, measured.scores, strict=True)],
        "whole": [row(score.patient, score) for score in measured.whole],
    }


def _packed_number(value: float) -> float | str | None:
    return None if math.isnan(value) else "inf" if math.isinf(value) else round(value, 4)


def unpacked(rows: Sequence[Sequence[Any]]) -> list[ImageScore]:
    """Read scores from the rows of a result file."""
    distances = [[math.nan if value is None else float(value) for value in row[6:9]] for row in rows]
    return [
        ImageScore(Overlap(*row[2:6]), hd95, str(row[0]), int(row[1]), nsd, hd)
        for row, (hd95, nsd, hd) in zip(rows, distances, strict=True)
    ]
