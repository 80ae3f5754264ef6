"""Collects the report on active learning: numbers and pictures, without layout.

Everything is read from the state database, the list of the datastore and the registry; nothing is changed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from segmed.active.retraining import Job, Retraining
from segmed.active.store.database import Database
from segmed.active.store.drift_history import DriftQuantity, drift_history
from segmed.active.store.labels import CaseWork, LabelLog, LabelRecord
from segmed.active.store.state import ActiveState
from segmed.active.store.study_files import StudyFiles
from segmed.active.tables.images import ImageRepository
from segmed.evaluation.case_scores import mean_dice
from segmed.registry.gate import Verdict, label_changes
from segmed.registry.model_version import ModelVersion
from segmed.registry.pointer import PointerMove
from segmed.registry.versions import Registry
from segmed.reports.cases import FINAL, Pair, WorstCase, label_pairs, worst_cases


@dataclass(frozen=True)
class VersionRow:
    """A model version.

    Attributes:
        model: Name of the model in the registry.
        version: Name of the version, from its number and checksum.
        created: Time of creation in seconds since 1970; NaN where the record cannot be read.
        served: Whether the version answers prompts now.
        damage: Why the version must not be served; "" if it may.
        images: Number of images that it was trained and validated on.
        cases: Number of validation cases.
        dice: Mean Dice over cases and then labels; NaN without scores.
        labels: Mean Dice by structure.
        verdict: Verdict of the gate; None if there is none.
        reason: Why it was trained; "" if a user began the training.
    """

    model: str
    version: str
    created: float
    served: bool
    damage: str = ""
    images: int = 0
    cases: int = 0
    dice: float = math.nan
    labels: Mapping[str, float] | None = None
    verdict: Verdict | None = None
    reason: str = ""


@dataclass(frozen=True)
class Suspect:
    """A label that is or was held for review, or was dropped.

    Attributes:
        label: The submission, with the outcome of the review.
        model_agreements: Dice of the model versions with the label, by version.
    """

    label: LabelRecord
    model_agreements: Mapping[str, float]


@dataclass(frozen=True)
class Report:
    """The contents of a report.

    Attributes:
        made: Time of the report in seconds since 1970.
        name: Name of the studies.
        images: Number of images in the studies.
        labelled: Number of images that have a label.
        versions: Versions by model, oldest first.
        moves: Changes of the served version, by model.
        jobs: Retrainings.
        labels: Submissions.
        cases: Work of users on images.
        pairs: Pairs of labels of one image.
        pairs_left: Number of images whose pairs were not read because there are too many.
        worst: Labels that the model's proposals differ from most.
        drift: History of drift by quantity; empty while there are too few images.
        suspects: Labels that are or were held for review, and those that a reviewer dropped.
        anonymous: Whether users and images are numbered instead of named.
    """

    made: float
    name: str = ""
    images: int = 0
    labelled: int = 0
    versions: tuple[VersionRow, ...] = ()
    moves: Mapping[str, tuple[PointerMove, ...]] | None = None
    jobs: tuple[Job, ...] = ()
    labels: tuple[LabelRecord, ...] = ()
    cases: tuple[CaseWork, ...] = ()
    pairs: tuple[Pair, ...] = ()
    pairs_left: int = 0
    worst: tuple[WorstCase, ...] = ()
    drift: tuple[DriftQuantity, ...] = ()
    suspects: tuple[Suspect, ...] = ()
    anonymous: bool = False


def collect(
    database: Database | None,
    files: StudyFiles,
    registry: Registry | None,
    window: str = "auto",
    name: str = "",
) -> Report:
    """Collect a report; label maps and images are read one after the other, a bounded number of them.

    Args:
        database: Database of active learning; None if there is none yet.
        files: Files of the studies.
        registry: Registry of trained models; None if there is none yet.
        window: Intensity window of the pictures.
        name: Name of the studies, for the title.

    Raises:
        OSError: The database cannot be read.
    """
    versions, moves = _versions(registry) if registry else ((), {})
    if database is None:
        labelled = sum(FINAL in labels for labels in files.labels.values())
        return Report(time.time(), name, len(files.labels), labelled, versions, moves)
    log = LabelLog(database)
    labels, jobs = tuple(log.labels()), tuple(Retraining(database).jobs())
    pairs, left = label_pairs(files, labels)
    with database.read() as sql:
        images, labelled = ImageRepository(sql).counts()
    return Report(
        made=time.time(),
        name=name,
        images=images,
        labelled=labelled,
        versions=versions,
        moves=moves,
        jobs=jobs,
        labels=labels,
        cases=tuple(log.cases()),
        pairs=tuple(pairs),
        pairs_left=left,
        worst=tuple(worst_cases(files, labels, window)),
        drift=_drift(database, jobs),
        suspects=tuple(
            Suspect(label, log.model_agreements(label.id))
            for label in labels
            if label.reason or label.state == "dropped"
        ),
    )


def _versions(registry: Registry) -> tuple[tuple[VersionRow, ...], dict[str, tuple[PointerMove, ...]]]:
    names = registry.names()
    rows = [_row(version) for name in names for version in registry.versions(name)]
    return tuple(rows), {name: tuple(registry.history(name)) for name in names}


def _row(version: ModelVersion) -> VersionRow:
    record = version.record
    if record is None:
        return VersionRow(version.name, version.version, math.nan, version.served, version.damage)
    return VersionRow(
        model=version.name,
        version=version.version,
        created=datetime.fromisoformat(record.created).timestamp() if record.created else math.nan,
        served=version.served,
        damage=version.damage,
        images=len(record.data.images),
        cases=len({score.case for score in record.scores}),
        dice=mean_dice(record.scores),
        labels={change.label: change.dice for change in label_changes(record.scores, record.scores)},
        verdict=record.verdict,
        reason=str(record.settings.get("reason", "")),
    )


def _drift(database: Database, jobs: tuple[Job, ...]) -> tuple[DriftQuantity, ...]:
    state = ActiveState(database)
    (images, scores, embeddings), arrived = state.table(""), state.arrived()
    ended = [job.created for job in jobs if job.state in ("promoted", "rejected")]
    times = [arrived.get(image, 0.0) for image in images]
    return drift_history(times, ended[-1] if ended else None, scores, embeddings)
