"""The plots of a report as SVG images. They hold numbers and dates only; the page adds the names."""

from __future__ import annotations

import io
import math
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date, datetime

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from segmed.active.store.drift_history import DriftQuantity
from segmed.active.store.labels import CaseWork, LabelRecord
from segmed.reports.numbers import is_finished, proposal_dice, running_median
from segmed.reports.report import VersionRow

# told apart with colour-blind eyes too: Okabe and Ito, Color Universal Design (2008)
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
OTHERS = "#999999"
ALARM = "#D55E00"
_INK = "#333333"
_drawing = threading.Lock()  # matplotlib's fonts and settings are shared by all threads


def colours_of(names: Sequence[str]) -> dict[str, str]:
    """A colour for each of the first names, grey for the others."""
    return {name: COLOURS[n] if n < len(COLOURS) else OTHERS for n, name in enumerate(names)}


def plot_versions(versions: Sequence[VersionRow], colours: Mapping[str, str]) -> bytes:
    """Mean Dice of the versions over time: filled where the gate accepted them, hollow where not."""
    figure, axes = _figure("Dice on validation cases")
    for model, colour in colours.items():
        mine = [
            v for v in versions if v.model == model and math.isfinite(v.dice) and math.isfinite(v.created)
        ]
        axes.plot(
            _times([v.created for v in mine]), [v.dice for v in mine], color=colour, linewidth=0.8, alpha=0.6
        )
        for version in mine:
            passed = version.verdict is None or version.verdict.accepted
            axes.plot(
                _times([version.created]),
                [version.dice],
                "o",
                color=colour,
                markerfacecolor=colour if passed else "white",
                markersize=9 if version.served else 6,
            )
    return _svg(figure, axes)


def plot_labels(days: Counter[tuple[date, str]], colours: Mapping[str, str]) -> bytes:
    """Labels per day, stacked by user."""
    figure, axes = _figure("labels per day")
    shown = sorted({day for day, _ in days})
    below = [0] * len(shown)
    for user, colour in colours.items():
        counts = [days[day, user] for day in shown]
        axes.bar(np.asarray(date2num(shown)) + 0.5, counts, 0.8, bottom=below, color=colour)
        below = [b + c for b, c in zip(below, counts, strict=True)]
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    return _svg(figure, axes)


def plot_work(cases: Sequence[CaseWork], colours: Mapping[str, str]) -> bytes:
    """Prompts and seconds of finished cases over time with their running medians."""
    done = sorted((case for case in cases if is_finished(case)), key=lambda case: case.opened)
    times = _times([case.opened for case in done])
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    for axes, title, values in (
        (upper, "prompts per case", [float(case.prompts) for case in done]),
        (lower, "seconds per case", [case.seconds for case in done]),
    ):
        axes.scatter(times, values, 14, [colours[case.user] for case in done], alpha=0.6, linewidths=0)
        axes.plot(times, running_median(values), color=_INK, linewidth=1.2)
        axes.set_ylim(bottom=0)
        _tidy(axes, title)
    return _svg(figure, upper, lower)


def plot_proposals(
    labels: Sequence[LabelRecord], colours: Mapping[str, str], changes: Sequence[float]
) -> bytes:
    """Dice of each proposal against the submitted label over time; lines where another version was served."""
    rated = [(label, dice) for label in labels if (dice := proposal_dice(label)) is not None]
    times, values = _times([label.at for label, _ in rated]), [dice for _, dice in rated]
    figure, axes = _figure("Dice of the proposal")
    for change in _times(changes):
        axes.axvline(change, color="#888888", linewidth=0.8, linestyle=":")
    axes.scatter(times, values, 14, [colours[label.user] for label, _ in rated], alpha=0.6, linewidths=0)
    axes.plot(times, running_median(values), color=_INK, linewidth=1.2)
    axes.set_ylim(-0.03, 1.03)
    return _svg(figure, axes)


def plot_drift(quantity: DriftQuantity) -> bytes:
    """Median and quartiles of the windows; the reference grey, alarms red."""
    figure, axes = _figure("", 2.0)
    for window in quantity.windows:
        if window.quartiles is None:
            continue
        low, middle, high = window.quartiles
        alarm = bool(window.drift and window.drift.message)
        colour = OTHERS if window.drift is None else ALARM if alarm else COLOURS[0]
        when = _times([(window.begin + window.end) / 2])
        axes.errorbar(
            when,
            [middle],
            [[middle - low], [high - middle]],
            fmt="D" if alarm else "o",
            color=colour,
            capsize=3,
            markersize=7 if alarm else 5,
        )
    return _svg(figure, axes)


def _figure(title: str, height: float = 2.6) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(9, height), layout="constrained")
    axes = figure.subplots()
    _tidy(axes, title)
    return figure, axes


def _tidy(axes: Axes, title: str) -> None:
    axes.set_ylabel(title, color=_INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)


def _svg(figure: Figure, *axes: Axes) -> bytes:
    for one in axes:
        locator = AutoDateLocator(minticks=3, maxticks=9)
        one.xaxis.set_major_locator(locator)
        one.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    out = io.BytesIO()
    with _drawing:
        FigureCanvasSVG(figure)
        figure.savefig(out, format="svg", metadata={"Date": None}, transparent=True)
    return out.getvalue()


def _times(values: Sequence[float]) -> np.ndarray:
    """Times as matplotlib's dates, in the time zone of this machine."""
    return np.asarray(date2num([datetime.fromtimestamp(value) for value in values]))
