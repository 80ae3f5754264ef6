"""Aggregation of scores of objects by case, source and modality, with intervals, as tables and as JSON.

The mean of a modality is the mean over its sources of the mean over their cases of the mean over their
objects: a volume with many slices has the weight of a single image, and all sources have equal weights.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

RESAMPLES = 2000
_TAIL = 0.025  # probability on each side of a 95 % interval


@dataclass(frozen=True)
class ObjectScore:
    """The measurements on one object.

    Attributes:
        modality: Modality of the case.
        source: Data set of the case.
        case: Name of the case.
        kind: Name of the structure, or "" if unknown.
        place: Position of the object in the case, such as "label 3, slice 17".
        share: Share of the slice or volume that the object fills, in [0, 1].
        values: Values by column; NaN if a method could not be tried.
    """

    modality: str
    source: str
    case: str
    kind: str = ""
    place: str = ""
    share: float = 0.0
    values: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Mean:
    """A mean and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f}–{self.high:.3f})"


def case_means(scores: Sequence[ObjectScore], column: str) -> dict[str, dict[tuple[str, str], float]]:
    """Means over objects by modality and (source, case); cases without values are left out."""
    grouped: dict[str, dict[tuple[str, str], list[float]]] = defaultdict(lambda: defaultdict(list))
    for score in scores:
        value = score.values.get(column, math.nan)
        if not math.isnan(value):
            grouped[score.modality][score.source, score.case].append(value)
    return {m: {key: float(np.mean(v)) for key, v in cases.items()} for m, cases in grouped.items()}


def modality_means(scores: Sequence[ObjectScore], column: str) -> dict[str, float]:
    """Means by modality: over sources of the means over cases of the means over objects."""
    out = {}
    for modality, cases in case_means(scores, column).items():
        sources: dict[str, list[float]] = defaultdict(list)
        for (source, _), value in cases.items():
            sources[source].append(value)
        out[modality] = float(np.mean([np.mean(values) for values in sources.values()]))
    return out


def overall(scores: Sequence[ObjectScore], column: str, resamples: int = RESAMPLES, seed: int = 0) -> Mean:
    """The mean over modalities and its bootstrap interval (Efron and Tibshirani, 1993).

    Cases are resampled within each modality, so that every modality is part of every resample; a source
    without a drawn case is not part of that resample.

    Args:
        scores: Scores of all objects.
        column: Name of the column.
        resamples: Number of resamples.
        seed: Seed of the draws.
    """
    means = modality_means(scores, column)
    if not means:
        return Mean(math.nan, math.nan, math.nan)
    generator = np.random.default_rng(seed)
    drawn = [_redrawn(cases, resamples, generator) for _, cases in sorted(case_means(scores, column).items())]
    low, high = np.quantile(np.mean(drawn, axis=0), [_TAIL, 1 - _TAIL])
    return Mean(float(np.mean([*means.values()])), float(low), float(high))


def _redrawn(
    cases: Mapping[tuple[str, str], float], resamples: int, generator: np.random.Generator
) -> np.ndarray:
    """Means (R,) of one modality over sources, for cases that are drawn with replacement."""
    values = np.array([*cases.values()])
    names = [source for source, _ in cases]
    # Drawing with replacement is the same as weighting each case by the number of times it is drawn, (R,
    # cases).
    weights = generator.multinomial(
        len(values), np.full(len(values), 1 / len(values)), size=resamples
    ).astype(float)
    means = []
    for source in dict.fromkeys(names):
        mine = np.array([name == source for name in names])
        count = weights[:, mine].sum(1)
        means.append(np.where(count > 0, weights[:, mine] @ values[mine] / np.maximum(count, 1), math.nan))
    return np.asarray(np.nanmean(means, axis=0))


def modality_table(scores: Sequence[ObjectScore], columns: Sequence[str]) -> str:
    """Markdown table of the modalities, their mean, and its 95 % interval."""
    lines = [_header(["modality", "sources", "cases", "objects"], columns)]
    means = {column: modality_means(scores, column) for column in columns}
    for modality in sorted({s.modality for s in scores}):
        mine = [s for s in scores if s.modality == modality]
        counts = [len({s.source for s in mine}), len({(s.source, s.case) for s in mine}), len(mine)]
        lines.append(_row([modality, *counts], [means[column].get(modality, math.nan) for column in columns]))
    whole = [overall(scores, column) for column in columns]
    bold = " | ".join("–" if math.isnan(m.value) else f"**{m.value:.3f}**" for m in whole)
    lines.append(f"| **mean over modalities** | | | | {bold} |")
    spans = " | ".join("–" if math.isnan(m.value) else f"{m.low:.3f}–{m.high:.3f}" for m in whole)
    lines.append(f"| 95 % interval, cases redrawn | | | | {spans} |")
    return "\n".join(lines)


def source_table(scores: Sequence[ObjectScore], columns: Sequence[str]) -> str:
    """Markdown table of the sources of each modality, with means over their cases."""
    lines = [_header(["modality", "source", "cases", "objects"], columns)]
    for modality, source in sorted({(s.modality, s.source) for s in scores}):
        mine = [s for s in scores if (s.modality, s.source) == (modality, source)]
        values = [modality_means(mine, column).get(modality, math.nan) for column in columns]
        lines.append(_row([modality, source, len({s.case for s in mine}), len(mine)], values))
    return "\n".join(lines)


def group_table(
    scores: Sequence[ObjectScore], columns: Sequence[str], title: str, group: Callable[[ObjectScore], str]
) -> str:
    """Markdown table of plain means over the objects of each group, in the order of their first appearance.

    Args:
        scores: Scores of all objects.
        columns: Names of the columns.
        title: Title of the groups.
        group: Function that returns the group of an object.
    """
    groups: dict[str, list[ObjectScore]] = defaultdict(list)
    for score in scores:
        groups[group(score)].append(score)
    lines = [_header([title, "objects"], columns)]
    for name, mine in groups.items():
        lines.append(
            _row([name, len(mine)], [_mean([s.values.get(c, math.nan) for s in mine]) for c in columns])
        )
    return "\n".join(lines)


def as_json(scores: Sequence[ObjectScore], columns: Sequence[str], **more: Any) -> dict[str, Any]:
    """All measurements for `json.dump`; values that are not finite become null."""
    summary = {column: asdict(overall(scores, column)) for column in columns}
    modalities = {column: modality_means(scores, column) for column in columns}
    sources: dict[str, dict[str, float]] = {column: {} for column in columns}
    for modality, source in sorted({(s.modality, s.source) for s in scores}):
        mine = [s for s in scores if (s.modality, s.source) == (modality, source)]
        for column in columns:
            sources[column][f"{modality}/{source}"] = modality_means(mine, column).get(modality, math.nan)
    out = {
        **more,
        "mean": summary,
        "by_modality": modalities,
        "by_source": sources,
        "objects": [asdict(s) for s in scores],
    }
    return dict(_finite(out))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _mean(values: Sequence[float]) -> float:
    known = [v for v in values if not math.isnan(v)]
    return float(np.mean(known)) if known else math.nan


def _header(titles: Sequence[str], columns: Sequence[str]) -> str:
    return f"| {' | '.join([*titles, *columns])} |\n" + "|---" * (len(titles) + len(columns)) + "|"


def _row(titles: Sequence[Any], values: Sequence[float]) -> str:
    return f"| {' | '.join([*map(str, titles), *('–' if math.isnan(v) else f'{v:.3f}' for v in values)])} |"
