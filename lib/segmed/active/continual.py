"""The training images of a retraining, and its steps: a training that resumes after a crash, and a verdict.

A retraining begins with the served weights and trains on the labels that are new to them, with a replay of
earlier ones. Patients that are held out stay so, and each retraining is evaluated on all of them, so that the
gate notices what is forgotten."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from segmed.active.replay import replay_set
from segmed.active.retraining import Job, Outcome
from segmed.active.store.labels import LabelRecord
from segmed.data.slices import SliceDataset
from segmed.imaging.file_locks import lock
from segmed.registry.model_version import ModelVersion
from segmed.registry.versions import Registry
from segmed.training.job import hold_out

_NOTE = "retraining"


@dataclass(frozen=True)
class LessonConfig:
    """Selection of the images of a retraining.

    Attributes:
        replay: Largest number of earlier images to train on again.
        validation: Share of the patients to hold out, as in the training itself.
        seed: Seed of both random draws, as in the training itself.
    """

    replay: int = 100
    validation: float = 0.2
    seed: int = 0


def learnt_until(jobs: Sequence[Job], job: Job) -> int:
    """Id of the newest label that the last promoted version before this job was trained on; 0 if none.

    Labels of a rejected retraining count as new in the next one.
    """
    return max(
        (j.upto for j in jobs if j.id < job.id and j.model == job.model and j.state == "promoted"), default=0
    )


def select_training_images(
    data: SliceDataset,
    labels: Sequence[LabelRecord],
    since: int,
    upto: int,
    config: LessonConfig | None = None,
) -> SliceDataset:
    """The images that a retraining is trained and evaluated on.

    Args:
        data: All labelled slices, with the image names that the labels use.
        labels: All submissions. Labels without a submission, such as those copied into the studies, count as
            earlier ones.
        since: Id of the newest label that was trained on before.
        upto: Id of the newest label to use; images labelled again after it are left out.
        config: Selection of earlier labels.

    Returns:
        The held-out images, the new ones and the replay, without labels that are held or dropped. Patients
        are held out with all their images.

    Raises:
        ValueError: Images of fewer than two patients are left.
    """
    config = config or LessonConfig()
    newest = {record.image: record for record in labels if record.state != "deleted"}
    usable = {
        image: patient
        for image, patient in sorted(data.images.items())
        if image not in newest or (newest[image].state == "kept" and newest[image].id <= upto)
    }
    held_out = set(hold_out(set(usable.values()), config.validation, config.seed)["validation"])
    checked, train = ([i for i, who in usable.items() if (who in held_out) == part] for part in (True, False))
    fresh = [image for image in train if image in newest and newest[image].id > since]
    earlier = {
        image: newest[image].sizes if image in newest else () for image in train if image not in set(fresh)
    }
    replayed = replay_set(earlier, max(config.replay, 0 if fresh else 1), config.seed)
    return data.of_images({*checked, *fresh, *replayed})


def note_of(job: Job) -> dict[str, str]:
    """Note in a version on the job that trained it; ids alone would repeat with a new database."""
    return {_NOTE: f"{job.id} of {job.created!r}", "reason": job.reason}


@contextmanager
def training_lock(folder: Path) -> Iterator[None]:
    """Wait until no other process trains in this folder, such as one left over from a killed server."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".retraining.lock").open("a") as file:
        lock(file)
        yield


@dataclass(frozen=True)
class TrainingSteps:
    """The steps of a retraining by `train_model`, which trains and judges in one call, in the step `judge`.

    Attributes:
        registry: Registry of the model versions.
        run: Function that trains to the end with `note_of(job)` and returns a message for the case that no
            version was kept.
    """

    registry: Registry
    run: Callable[[Job], str]

    def train(self, job: Job) -> None:
        """Do nothing; `judge` continues from the training's own checkpoint."""

    def judge(self, job: Job) -> Outcome:
        """Train, have the gate decide, and find the version.

        Raises:
            RuntimeError: No version was kept.
        """
        message = self.run(job)
        outcome = self.outcome(job)
        if outcome is None:
            raise RuntimeError(message or "The training kept no version.")
        return outcome

    def outcome(self, job: Job) -> Outcome | None:
        """The version with this job's note, promoted now if a crash prevented that after the verdict."""
        note = note_of(job)[_NOTE]
        versions = self.registry.versions(job.model)
        mine = [
            v
            for v in versions
            if v.record is not None and v.record.settings.get(_NOTE) == note and not v.damage
        ]
        if not mine or mine[-1].record is None or mine[-1].record.verdict is None:
            return None
        version, verdict = mine[-1], mine[-1].record.verdict
        if verdict.accepted and version == versions[-1] and not version.served and not self._left(version):
            self.registry.promote(job.model, version.version, verdict.reason)
        return Outcome(verdict.accepted, version.version, verdict.reason)

    def _left(self, version: ModelVersion) -> bool:
        """Whether the version was served before and replaced by a user."""
        return any(move.previous == version.version for move in self.registry.history(version.name))
