"""Renders a report as one self-contained HTML page: with pictures, without scripts, all text escaped."""

from __future__ import annotations

import math
import time
from datetime import datetime
from pathlib import Path

import segmed
from segmed.active.store.drift_history import EMBEDDING
from segmed.reports import plots
from segmed.reports.cases import agreements
from segmed.reports.numbers import STATES, is_finished, labels_per_day, labels_per_user, work_per
from segmed.reports.page import POLICY, page_environment
from segmed.reports.report import Report

_QUANTITIES = {
    EMBEDDING: "How far images lie from the middle of the reference in the model's features; 1 is usual",
    "predicted_iou": "Error that the model predicts for its masks (1 − IoU)",
    "entropy": "Entropy of the prediction; 0 is certain",
}


def render(report: Report) -> str:
    """The HTML text of the page.

    Args:
        report: Report from `collect`.
    """
    environment = page_environment(Path(__file__).parent)
    environment.filters |= {"when": _when, "dice": _dice, "user": _user, "long": _long}
    users = labels_per_user(report.labels)
    active = {label.user for label in report.labels} | {case.user for case in report.cases}
    colours = plots.colours_of(list(dict.fromkeys([*(row.user for row in users), *sorted(active)])))
    models = plots.colours_of(sorted({row.model for row in report.versions}))
    finished = [case for case in report.cases if is_finished(case)]
    served = [
        datetime.fromisoformat(move.time).timestamp()
        for moves in (report.moves or {}).values()
        for move in moves
    ]
    suspects = sorted(report.suspects, key=lambda suspect: (suspect.label.state != "held", -suspect.label.id))
    compared = [pair for pair in report.pairs if pair.mean is not None]
    return environment.get_template("report.html").render(
        report=report,
        policy=POLICY,
        program=segmed.__version__,
        zone=time.strftime("%Z"),
        states=STATES,
        quantities=_QUANTITIES,
        colours=colours,
        models=models,
        users=users,
        days=labels_per_day(report.labels),
        finished=finished,
        workers={
            user: colour for user, colour in colours.items() if user in {case.user for case in finished}
        },
        verdicts={row.version for row in report.versions},
        open=sum(case.label is None for case in report.cases),
        by_user=work_per(report.cases, lambda case: case.user),
        by_strategy=work_per(report.cases, lambda case: case.strategy),
        by_model=work_per(report.cases, lambda case: case.model),
        agreements=agreements(report.pairs),
        compared=sorted(compared, key=lambda pair: pair.mean if pair.mean is not None else 0.0),
        replaced=[pair for pair in report.pairs if pair.mean is None],
        suspects=suspects,
        held=sum(suspect.label.state == "held" for suspect in suspects),
        alarms=[quantity for quantity in report.drift if quantity.overall.message],
        versions_plot=plots.plot_versions(report.versions, models) if report.versions else b"",
        labels_plot=plots.plot_labels(labels_per_day(report.labels), colours) if report.labels else b"",
        work_plot=plots.plot_work(report.cases, colours) if finished else b"",
        proposals_plot=(
            plots.plot_proposals(report.labels, colours, served)
            if any(r.agreement for r in report.labels)
            else b""
        ),
        drift_plots={quantity.name: plots.plot_drift(quantity) for quantity in report.drift},
    )


def _when(at: float) -> str:
    return datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M") if math.isfinite(at) and at > 0 else "–"


def _dice(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.3f}"


def _user(name: str) -> str:
    return name or "(unknown)"


def _long(seconds: float) -> str:
    """A duration in a readable form."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
