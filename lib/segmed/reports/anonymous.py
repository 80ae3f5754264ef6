"""Anonymised reports: users and images are numbered, and texts of users and error messages are left out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from segmed.active.store.labels import CaseWork, LabelRecord
from segmed.data.pairs import natural
from segmed.reports.report import Report, VersionRow

_LEFT_OUT = "(left out)"


def anonymised(report: Report) -> Report:
    """The report without user names, image ids and free text, which may hold both.

    Pictures stay, and so do the names of structures.
    """
    labels, cases = report.labels, report.cases
    users = _numbered(
        "user",
        [
            *(user for label in labels for user in (label.user, label.reviewer)),
            *(case.user for case in cases),
            *(user for pair in report.pairs for user in pair.users),
        ],
    )
    listed = (
        {label.image for label in labels}
        | {case.image for case in cases}
        | {pair.image for pair in report.pairs}
    )
    images = _numbered("image", sorted(listed, key=natural))

    def of_label(label: LabelRecord) -> LabelRecord:
        return replace(
            label,
            image=images[label.image],
            user=users[label.user],
            reviewer=users[label.reviewer],
            checksum="",
        )

    def of_case(case: CaseWork) -> CaseWork:
        return replace(case, image=images[case.image], user=users[case.user])

    return replace(
        report,
        name="",
        anonymous=True,
        versions=tuple(_without_text(row) for row in report.versions),
        moves={
            model: tuple(replace(move, reason=_LEFT_OUT if move.reason else "") for move in moves)
            for model, moves in (report.moves or {}).items()
        },
        jobs=tuple(replace(job, message=_LEFT_OUT if job.message else "") for job in report.jobs),
        labels=tuple(of_label(label) for label in labels),
        cases=tuple(of_case(case) for case in cases),
        pairs=tuple(
            replace(pair, image=images[pair.image], users=(users[pair.users[0]], users[pair.users[1]]))
            for pair in report.pairs
        ),
        worst=tuple(replace(case, label=of_label(case.label)) for case in report.worst),
        suspects=tuple(replace(suspect, label=of_label(suspect.label)) for suspect in report.suspects),
    )


def _numbered(what: str, names: Iterable[str]) -> dict[str, str]:
    known = {name: f"{what} {n}" for n, name in enumerate(dict.fromkeys(name for name in names if name), 1)}
    return {"": "", **known}


def _without_text(row: VersionRow) -> VersionRow:
    """The row without texts that may name images, as a verdict does that lacks cases to compare."""
    damage = _LEFT_OUT if row.damage else ""
    if row.verdict is None or row.verdict.cases:
        return replace(row, damage=damage)
    return replace(row, damage=damage, verdict=replace(row.verdict, reason=_LEFT_OUT))
