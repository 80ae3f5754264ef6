"""Which images of a run a person should look at first.

Three quantities, each the larger the more urgent: the uncertainty that the run measured, the disagreement
with a run of another version, and the distance of volumes from those of the other images. They have no common
unit; an image therefore counts by its rank in each of them, and the highest of its ranks decides.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import median_abs_deviation, rankdata

from segmed.batch.finished import FinishedItem, finished_items
from segmed.batch.measurements import UNCERTAINTY
from segmed.data.left_out import image_names
from segmed.evaluation.metrics import Overlap
from segmed.imaging.durable import appear_whole
from segmed.imaging.grid import read_grid, read_labels

DISAGREEMENT, VOLUME = "disagreement", "volume"
QUANTITIES = (UNCERTAINTY, DISAGREEMENT, VOLUME)
_FEWEST = 8  # images with a structure, for its usual volume
_NARROWEST = 0.05  # least standard deviation of the logarithm of a volume: 5 % are no outlier
_ABSENT = 10.0  # standard deviations that count for a structure that most other images have

Tell = Callable[[int, int], None]


@dataclass
class Finding:
    """An image of a run.

    Attributes:
        image: Its key: path relative to the source, or SeriesInstanceUID.
        reason: Why it is urgent, in words.
        priority: Highest of its ranks, in (0, 1]; 0 if nothing is known.
        uncertainty: Uncertainty of the model in [0, 1], NaN if it was not measured.
        disagreement: 1 - mean Dice with the other run, NaN if there is none.
        volume: Largest distance of a volume from the usual one, in robust standard deviations of its
            logarithm, NaN if too few images have the structure.
    """

    image: str
    reason: str = ""
    priority: float = 0.0
    uncertainty: float = math.nan
    disagreement: float = math.nan
    volume: float = math.nan


@dataclass(frozen=True)
class Ranking:
    """The images of a run, the most urgent first.

    Attributes:
        findings: All finished images.
        places: Where each one is, JSON values by key.
        notes: What could not be compared, for the user.
    """

    findings: tuple[Finding, ...]
    places: Mapping[str, Mapping[str, Any]]
    notes: tuple[str, ...]


def rank_images(
    folder: Path,
    against: Path | None = None,
    by: Collection[str] = QUANTITIES,
    tell: Tell = lambda done, total: None,
) -> Ranking:
    """Rank the finished images of a run.

    Args:
        folder: Folder of the run.
        against: Folder of a run of another version over the same images.
        by: Quantities that count, of `QUANTITIES`.
        tell: Function called with the number of compared images and of all.

    Raises:
        FileNotFoundError: There is no run.
        ValueError: Nothing is known of what is asked for, or a manifest is damaged.
    """
    items = finished_items(folder)
    if not items:
        raise ValueError(f"No image of {folder} is done yet. Run `segmed batch run` first.")
    findings, notes = {key: Finding(key) for key in items}, list[str]()
    reasons: dict[str, dict[str, str]] = {name: {} for name in QUANTITIES}
    if UNCERTAINTY in by:
        _add_uncertainty(items, findings, reasons[UNCERTAINTY])
    if DISAGREEMENT in by and against is not None:
        notes += _add_disagreement(items, finished_items(against), findings, reasons[DISAGREEMENT], tell)
    if VOLUME in by:
        _add_volumes(items, findings, reasons[VOLUME])
    _add_priorities(list(findings.values()), reasons)
    if not any(one.priority for one in findings.values()):
        raise ValueError(
            f"There is nothing to rank the {len(items)} images by. Run with --uncertainty, give a second run "
            f"by --against, or segment at least {_FEWEST} images for a comparison of volumes."
        )
    order = sorted(findings.values(), key=lambda one: (-one.priority, one.image))
    return Ranking(tuple(order), {key: item.place for key, item in items.items()}, tuple(notes))


def write_ranking(ranking: Ranking, out: Path) -> None:
    """Write a table as .csv. Raises OSError."""
    names = [one.name for one in fields(Finding)]
    with appear_whole(out) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        for finding in ranking.findings:
            values = [getattr(finding, name) for name in names]
            writer.writerow(["" if isinstance(v, float) and math.isnan(v) else v for v in values])


def queue_of(ranking: Ranking, studies: Path | None, most: int) -> tuple[dict[str, str], int]:
    """The most urgent images by the ids that they have on a server, with their reasons.

    Args:
        ranking: The ranking.
        studies: Folder of the server's images; None for the series of a PACS.
        most: Largest number of images.

    Returns:
        Reasons by image id, and the number of images that the server does not have.
    """
    files = image_names(studies) if studies else {}
    ids = {(studies / name).resolve(): image for image, name in files.items()} if studies else {}
    queue, strangers = dict[str, str](), 0
    for finding in ranking.findings:
        if len(queue) == most:
            break
        file = ranking.places[finding.image].get("file")
        image = ids.get(Path(file).resolve()) if file else finding.image
        if image is None:
            strangers += 1
        elif finding.priority:
            queue[image] = finding.reason
    return queue, strangers


def _add_uncertainty(
    items: Mapping[str, FinishedItem], findings: Mapping[str, Finding], reasons: dict[str, str]
) -> None:
    for key, item in items.items():
        findings[key].uncertainty = next(
            (row[UNCERTAINTY] for row in item.rows.values() if UNCERTAINTY in row), math.nan
        )
    known = [one.uncertainty for one in findings.values() if math.isfinite(one.uncertainty)]
    usual = float(np.median(known)) if known else math.nan
    for key, one in findings.items():
        reasons[key] = f"The model is uncertain: {one.uncertainty:.2f}, usually {usual:.2f}."


def _add_disagreement(
    items: Mapping[str, FinishedItem],
    others: Mapping[str, FinishedItem],
    findings: Mapping[str, Finding],
    reasons: dict[str, str],
    tell: Tell,
) -> list[str]:
    left = defaultdict[str, int](int)
    for number, (key, item) in enumerate(items.items(), 1):
        other = others.get(key)
        if other is None or other.digest != item.digest:
            left["are not in the other run" if other is None else "changed between the runs"] += 1
        else:
            try:
                dice = _dice(item, other)
            except (ValueError, OSError):
                left["have a mask that cannot be read"] += 1
            else:
                findings[key].disagreement = 1 - float(np.mean(list(dice.values()))) if dice else 0.0
                worst = min(dice, key=lambda name: dice[name], default="")
                reasons[key] = (
                    f"Versions {item.version} and {other.version} disagree: Dice {dice.get(worst, 1):.2f} of "
                    f"{worst}."
                )
        tell(number, len(items))
    return [f"{count} images {why} and are not compared." for why, count in left.items()]


def _dice(item: FinishedItem, other: FinishedItem) -> dict[str, float]:
    """Dice by name of the structures that both models know and at least one of them found."""
    names = [name for name in item.rows if name in other.rows]
    rows = [(name, item.rows[name], other.rows[name]) for name in names]
    if all(mine["empty"] and theirs["empty"] for _, mine, theirs in rows):
        return {}
    grid = read_grid(item.mask, labels=True)
    first, second = read_labels(item.mask, grid), read_labels(other.mask, grid)
    dice = {
        name: Overlap.of(first == mine["label"], second == theirs["label"]).dice()
        for name, mine, theirs in rows
    }
    return {name: value for name, value in dice.items() if math.isfinite(value)}


def _add_volumes(
    items: Mapping[str, FinishedItem], findings: Mapping[str, Finding], reasons: dict[str, str]
) -> None:
    volumes: dict[str, dict[str, float]] = defaultdict(dict)
    for key, item in items.items():
        for name, row in item.rows.items():
            volumes[name][key] = float(row["volume_ml"])
    for name, found in volumes.items():
        present = np.array([volume for volume in found.values() if volume > 0])
        if len(present) < _FEWEST:
            continue
        usual = float(np.median(present))
        spread = max(float(median_abs_deviation(np.log(present), scale="normal")), _NARROWEST)
        for key, volume in found.items():
            if volume > 0:
                far = abs(math.log(volume / usual)) / spread
                text = f"The volume of {name} is {volume:.3g} ml, usually {usual:.3g} ml."
            else:
                far = _ABSENT if 2 * len(present) > len(found) else 0.0
                text = f"{name} was not found, unlike in most images."
            if not findings[key].volume >= far:
                findings[key].volume, reasons[key] = far, text


def _add_priorities(findings: list[Finding], reasons: Mapping[str, Mapping[str, str]]) -> None:
    for quantity in QUANTITIES:
        values = np.array([getattr(one, quantity) for one in findings])
        known = np.flatnonzero(np.isfinite(values))
        # the largest one has rank 1, and equal ones the mean of their ranks
        for n, rank in zip(known, rankdata(values[known]) / max(len(known), 1), strict=True):
            if rank > findings[n].priority:
                findings[n].priority = float(rank)
                findings[n].reason = reasons[quantity][findings[n].image]
