"""Rows of a table from the counts of jobs: means and spreads over seeds, and checks of their consistency."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add
from typing import Any

import numpy as np

from segmed.benchmark.measure import BACKGROUND
from segmed.benchmark.packing import unpacked
from segmed.benchmark.published import Published
from segmed.evaluation.metrics import Overlap
from segmed.evaluation.segmentation_scores import ImageScore, summarise

# The columns of a table in this order, key: heading
METRICS: Mapping[str, str] = {
    "dice": "Dice",
    "iou": "IoU",
    "dice_whole": "Dice, whole volumes",
    "dice_all": "Dice, all images",
    "iou_all": "IoU, all images",
    "dice_pooled": "Dice, pooled",
    "iou_pooled": "IoU, pooled",
    "iou_two_classes": "IoU, two classes",
    "precision": "precision",
    "recall": "recall",
    "accuracy": "accuracy",
    "nsd": "NSD",
    "hd95": "HD95",
    "hd": "HD",
    "missed": "missed",
}
BOX_METRICS: Mapping[str, str] = {
    "map50": "mAP at 0.5",
    "map50_95": "mAP at 0.5 to 0.95",
    "box_precision": "precision of boxes",
    "box_recall": "recall of boxes",
    "boxless": "slices with an object and no box",
}
TITLES: Mapping[str, str] = {
    **METRICS,
    **BOX_METRICS,
    "f1": "F1",
    "dice_with_background": "Dice, mean with background",
    "hausdorff": "Hausdorff distance",
    "parameters": "parameters, M",
    "trainable": "trained parameters, M",
}
_SAME = {"f1": "dice", "hausdorff": "hd"}  # our metric for a published one of another name
_ROUNDING = 1e-9  # tolerance for rounding errors


@dataclass(frozen=True)
class Number:
    """A mean over seeds.

    Attributes:
        mean: The mean, NaN without values.
        spread: Sample standard deviation, NaN for one seed.
    """

    mean: float
    spread: float = math.nan

    @classmethod
    def of(cls, values: Sequence[float]) -> Number:
        """Compute the mean and the spread of the finite values."""
        known = [v for v in values if math.isfinite(v)]
        if not known:
            return cls(math.nan)
        return cls(float(np.mean(known)), float(np.std(known, ddof=1)) if len(known) > 1 else math.nan)

    def text(self, digits: int = 3) -> str:
        """Format the number, such as 0.812 ± 0.004."""
        if math.isnan(self.mean):
            return "–"
        spread = "" if math.isnan(self.spread) else f" ± {self.spread:.{digits}f}"
        return f"{self.mean:.{digits}f}{spread}"


@dataclass(frozen=True)
class Row:
    """The numbers of an entry on one test set.

    Attributes:
        entry: Name of the entry in the table.
        where: Test set, "" for the table's own, see `Published`.
        seeds: Number of seeds with a result.
        images: Number of scored objects on slices for one seed.
        values: Numbers by metric.
        identities: Number of checks of IoU = Dice / (2 − Dice): on every image, and on all pixels together.
        violations: Number of checks in which it did not hold.
    """

    entry: str
    where: str
    seeds: int
    images: int
    values: Mapping[str, Number] = field(default_factory=dict)
    identities: int = 0
    violations: int = 0

    @property
    def identity(self) -> str:
        """Result of the checks for the reader."""
        if not self.identities:
            return "–"
        return f"violated in {self.violations}" if self.violations else f"holds in {self.identities}"


@dataclass(frozen=True)
class Comparison:
    """All published versions of a number beside ours.

    Attributes:
        published: The published versions, at least one.
        title: Title of the metric for the reader.
        ours: Our number, or None if there is none.
        odd: Reason why the published values are inconsistent, or "".
    """

    published: tuple[Published, ...]
    title: str
    ours: Number | None
    odd: str = ""

    @property
    def entry(self) -> str:
        """Name of the row."""
        return self.published[0].entry

    @property
    def where(self) -> str:
        """The test set, see `Published`."""
        return self.published[0].where

    @property
    def metric(self) -> str:
        """Name of the metric."""
        return self.published[0].metric


def identity_holds(dice: float, iou: float) -> bool:
    """Whether IoU = Dice / (2 − Dice), which holds for an IoU and a Dice of the same two masks."""
    return abs(iou - dice / (2 - dice)) < _ROUNDING


def rows_of(entry: str, results: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Compute one row per test set, over the seeds.

    Args:
        entry: Name of the entry.
        results: Results of `run_job`, one per seed, all without errors.
    """
    boxes = _boxes(results) if "boxes" in results[0] else {}
    if "sets" not in results[0]:
        return [
            Row(entry, "", len(results), int(results[0]["boxes"]["objects"]), {**boxes, **_size(results)})
        ]
    rows = [_row(entry, where, results) for where in results[0]["sets"]]
    return [row if row.where else replace(row, values={**row.values, **boxes}) for row in rows]


def compared(published: Sequence[Published], rows: Sequence[Row]) -> list[Comparison]:
    """Pair every published number with ours, row by row."""
    ours = {(row.entry, row.where): row.values for row in rows}
    groups: dict[tuple[str, str, str], list[Published]] = {}
    for value in sorted(
        published, key=lambda p: list(dict.fromkeys(q.entry for q in published)).index(p.entry)
    ):
        groups.setdefault((value.entry, value.where, value.metric), []).append(value)
    found = []
    for (entry, where, metric), versions in groups.items():
        ious = {p.source: p.value for p in groups.get((entry, where, "iou"), ())}
        below = [v.source for v in versions if metric in ("dice", "f1") and v.value < ious.get(v.source, 0)]
        odd = f"below the IoU of {' and '.join(below)}, which no mask can have" if below else ""
        mine = ours.get((entry, where), {}).get(_SAME.get(metric, metric))
        title = TITLES.get(metric) or metric.replace("dice:", "Dice, ")
        found.append(Comparison(tuple(versions), title, mine, odd))
    return found


def _row(entry: str, where: str, results: Sequence[Mapping[str, Any]]) -> Row:
    seeds = [unpacked(r["sets"][where]["slices"]) for r in results]
    whole = [unpacked(r["sets"][where]["whole"]) for r in results]
    classes = {int(value): name for value, name in results[0]["classes"].items()}
    numbers = [
        _numbers(scores, mine, classes if not where else {})
        for scores, mine in zip(seeds, whole, strict=True)
    ]
    values = {key: Number.of([n.get(key, math.nan) for n in numbers]) for key in numbers[0]}
    # Over all seeds, so that Dice and IoU are consistent.
    pooled = _pooled([s for scores in seeds for s in scores])
    for key, value in (("dice_pooled", pooled.dice("one")), ("iou_pooled", pooled.iou("one"))):
        values[key] = Number(value, values[key].spread)
    if not where:
        values |= _size(results)
        values["ms"] = Number.of([1000 * r["seconds"] / max(r["slices"][2], 1) for r in results])
        values["overhead"] = Number.of([r["seconds"] / max(r["model_seconds"], 1e-9) for r in results])
    checked = [s.overlap for scores in seeds for s in scores if s.overlap.tp + s.overlap.fp + s.overlap.fn]
    checked += [_pooled(scores) for scores in seeds] + [pooled]
    wrong = sum(not identity_holds(o.dice("one"), o.iou("one")) for o in checked)
    wrong += not identity_holds(values["dice_pooled"].mean, values["iou_pooled"].mean)
    return Row(entry, where, len(results), len(seeds[0]), values, len(checked) + 1, wrong)


def _numbers(
    scores: Sequence[ImageScore], whole: Sequence[ImageScore], classes: Mapping[int, str]
) -> dict[str, float]:
    """The metrics of one seed, and the Dice of each class that is on at least one slice.

    Surfaces are compared in whole images, everything else on slices; volumes have their own Dice as well.
    """
    objects = [s for s in scores if s.label != BACKGROUND]
    summary = summarise(objects)
    pooled = _pooled(objects)
    found = {key: float(getattr(summary, key)) for key in METRICS if hasattr(summary, key)}
    images = [s for s in whole if s.label != BACKGROUND]
    surfaces = summarise(images)
    found |= {key: getattr(surfaces, key) for key in ("nsd", "hd95", "hd")}
    if len(images) < len(objects):  # otherwise each slice is an image of its own
        found["dice_whole"] = surfaces.dice
    found |= {"dice_pooled": pooled.dice("one"), "iou_pooled": pooled.iou("one")}
    by_class = {}
    for label, name in {BACKGROUND: "background", **classes}.items():
        mine = [s for s in scores if s.label == label and s.has_truth]
        if mine:
            by_class[f"dice:{name}"] = float(np.mean([s.overlap.dice() for s in mine]))
    if "dice:background" in by_class:
        found["dice_with_background"] = float(np.mean(list(by_class.values())))
    return found | by_class


def _boxes(results: Sequence[Mapping[str, Any]]) -> dict[str, Number]:
    named = {"map50": "map50", "map50_95": "map50_95", "box_precision": "precision", "box_recall": "recall"}
    named |= {"boxless": "slices_without"}
    return {key: Number.of([float(r["boxes"][name]) for r in results]) for key, name in named.items()}


def _pooled(scores: Sequence[ImageScore]) -> Overlap:
    return reduce(add, (s.overlap for s in scores if s.label != BACKGROUND), Overlap(0, 0, 0, 0))


def _size(results: Sequence[Mapping[str, Any]]) -> dict[str, Number]:
    return {key: Number(results[0][key] / 1e6) for key in ("parameters", "trainable")}
