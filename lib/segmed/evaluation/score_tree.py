"""Numbers of single objects put together by case, source and modality, with intervals, as tables and as JSON.

The mean of a modality is that over its sources, of the mean over their cases, of the mean over their objects: a volume
with many slices weighs no more than a picture, and a source with many pictures no more than one with few.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

RESAMPLES = 2000
_TAIL = 0.025  # on each side of a 95 % interval


@dataclass(frozen=True)
class ObjectScore:
    """What was measured on one object.

    Attributes:
        modality: of its case.
        source: data set of its case.
        case: name.
        kind: name of the structure, or "" where that is not known.
        place: which object of the case, such as "label 3, slice 17".
        share: of the slice or volume that it fills, in [0, 1].
        values: by column; NaN where a method could not be tried.
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
    """Means over objects by modality and (source, case); cases without a number are left out."""
    grouped: dict[str, dict[tuple[str, str], list[float]]] = defaultdict(lambda: defaultdict(list))
    for score in scores:
        value = score.values.get(column, math.nan)
        if not math.isnan(value):
            grouped[score.modality][score.source, score.case].append(value)
    return {m: {key: float(np.mean(v)) for key, v in cases.items()} for m, cases in grouped.items()}


def modality_means(scores: Sequence[ObjectScore], column: str) -> dict[str, float]:
    """Means by modality over sources, of those over cases, of those over objects."""
    out = {}
    for modality, cases in case_means(scores, column).items():
        sources: dict[str, list[float]] = defaultdict(list)
        for (source, _), value in cases.items():
            sources[source].append(value)
        out[modality] = float(np.mean([np.mean(values) for values in sources.values()]))
    return out


def overall(scores: Sequence[ObjectScore], column: str, resamples: int = RESAMPLES, seed: int = 0) -> Mean:
    """The mean over modalities and its bootstrap interval (Efron and Tibshirani, 1993).

    Cases are redrawn within each modality, so that every modality counts in every draw; a source of which no case was
    drawn does not count in that draw.

    Args:
        scores: of all objects.
        column: whose values.
        resamples: how often cases are redrawn.
        seed: of the draws.
    """
    means = modality_means(scores, column)
    if not means:
        return Mean(math.nan, math.nan, math.nan)
    generator = np.random.default_rng(seed)
    drawn = [_redrawn(cases, resamples, generator) for _, cases in sorted(case_means(scores, column).items())]
    low, high = np.quantile(np.mean(drawn, axis=0), [_TAIL, 1 - _TAIL])
    return Mean(float(np.mean([*means.values()])), float(low), float(high))


def _redrawn(cases: Mapping[tuple[str, str], float], resamples: int, generator: np.random.Generator) -> np.ndarray:
    """(R,) means of one modality over sources, of cases that are drawn with replacement."""
    values = np.array([*cases.values()])
    names = [source for source, _ in cases]
    # drawing with replacement is the same as weighing each case by how often it is drawn
    weights = generator.multinomial(len(values), np.full(len(values), 1 / len(values)), size=resamples).astype(float)
    means = []
    for source in dict.fromkeys(names):
        mine = np.array([name == source for name in names])
        count = weights[:, mine].sum(1)
        means.append(np.where(count > 0, weights[:, mine] @ values[mine] / np.maximum(count, 1), math.nan))
    return np.asarray(np.nanmean(means, axis=0))


def modality_table(scores: Sequence[ObjectScore], columns: Sequence[str]) -> str:
    """Markdown: modalities, their mean, and its 95 % interval."""
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
    """Markdown: sources of each modality, means over their cases."""
    lines = [_header(["modality", "source", "cases", "objects"], columns)]
    for modality, source in sorted({(s.modality, s.source) for s in scores}):
        mine = [s for s in scores if (s.modality, s.source) == (modality, source)]
        values = [modality_means(mine, column).get(modality, math.nan) for column in columns]
        lines.append(_row([modality, source, len({s.case for s in mine}), len(mine)], values))
    return "\n".join(lines)


def group_table(
    scores: Sequence[ObjectScore], columns: Sequence[str], title: str, group: Callable[[ObjectScore], str]
) -> str:
    """Markdown: plain means over the objects of each group, in the order in which groups first come.

    Args:
        scores: of all objects.
        columns: to show.
        title: of what `group` tells.
        group: the group of an object.
    """
    groups: dict[str, list[ObjectScore]] = defaultdict(list)
    for score in scores:
        groups[group(score)].append(score)
    lines = [_header([title, "objects"], columns)]
    for name, mine in groups.items():
        lines.append(_row([name, len(mine)], [_mean([s.values.get(c, math.nan) for s in mine]) for c in columns]))
    return "\n".join(lines)


def as_json(scores: Sequence[ObjectScore], columns: Sequence[str], **more: Any) -> dict[str, Any]:
    """Everything that was measured, ready for `json.dump`; numbers that are none become null."""
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
    there = [v for v in values if not math.isnan(v)]
    return float(np.mean(there)) if there else math.nan


def _header(titles: Sequence[str], columns: Sequence[str]) -> str:
    return f"| {' | '.join([*titles, *columns])} |\n" + "|---" * (len(titles) + len(columns)) + "|"


def _row(titles: Sequence[Any], values: Sequence[float]) -> str:
    return f"| {' | '.join([*map(str, titles), *('–' if math.isnan(v) else f'{v:.3f}' for v in values)])} |"
