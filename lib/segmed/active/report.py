"""What active learning has done so far, put together for people to read: numbers and pictures, no layout.

Everything is read from the state database, the list of the datastore and the registry; nothing is changed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from segmed.active.database import Database
from segmed.active.drift_history import DriftQuantity, drift_history
from segmed.active.labels import CaseWork, LabelLog, LabelRecord
from segmed.active.report_cases import FINAL, Pair, WorstCase, label_pairs, worst_cases
from segmed.active.retraining import Job, Retraining
from segmed.active.state import ActiveState
from segmed.active.study_files import StudyFiles
from segmed.active.tables.images import ImageRepository
from segmed.evaluation.case_scores import mean_dice
from segmed.training.gate import Verdict, label_changes
from segmed.training.model_version import ModelVersion
from segmed.training.pointer import PointerMove
from segmed.training.registry import Registry


@dataclass(frozen=True)
class VersionRow:
    """A model version.

    Attributes:
        model: name in the registry.
        version: number and checksum.
        created: s since 1970; NaN where the record cannot be read.
        served: whether it answers prompts now.
        damage: why it must not be served, or "".
        images: that it was trained and validated on.
        cases: validation cases.
        dice: mean over cases and then labels; NaN without scores.
        labels: mean Dice by structure.
        verdict: of the gate; None if it was not asked.
        reason: why it was trained; "" if by hand.
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
    """A label that was held back at some time, or turned down.

    Attributes:
        label: what was submitted, and what a reviewer said.
        witnesses: Dice that model versions reach, by version.
    """

    label: LabelRecord
    witnesses: Mapping[str, float]


@dataclass(frozen=True)
class Report:
    """The state of the loop.

    Attributes:
        made: s since 1970.
        name: of the studies.
        images: in the studies.
        labelled: of these.
        versions: by model, oldest first.
        moves: of what is served, by model.
        jobs: retrainings.
        labels: submissions.
        cases: work on images.
        pairs: of labels of one image.
        pairs_left: images whose pairs were too many to be read.
        worst: what the model proposed worst.
        drift: by quantity; nothing while there are too few images.
        suspects: labels in quarantine, those that were, and those that a reviewer turned down.
        anonymous: whether users and images are numbers.
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
    """Read everything; label maps and images one after the other, a bounded number of them.

    Args:
        database: the state; None if there is none yet.
        files: of the studies.
        registry: of trained models; None if there is none yet.
        window: of the pictures.
        name: of the studies, for the title.

    Raises:
        OSError: the state cannot be read.
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
            Suspect(label, log.witnesses(label.id))
            for label in labels
            if label.reason or label.state == "dropped"
        ),
    )


def _versions(registry: Registry) -> tuple[tuple[VersionRow, ...], dict[str, tuple[PointerMove, ...]]]:
    names = registry.names()
    rows = [_row(version) for name in names for version in registry.versions(name)]
    return tuple(rows), {name: tuple(registry.history(name)) for name in names}


def _row(found: ModelVersion) -> VersionRow:
    record = found.record
    if record is None:
        return VersionRow(found.name, found.version, math.nan, found.served, found.damage)
    return VersionRow(
        model=found.name,
        version=found.version,
        created=datetime.fromisoformat(record.created).timestamp() if record.created else math.nan,
        served=found.served,
        damage=found.damage,
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
