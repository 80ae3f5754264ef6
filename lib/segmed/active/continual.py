"""What a retraining learns from, and its steps: one training that goes on where it was killed, and the gate's verdict.

A retraining begins with the served weights and learns the labels that these have not learnt, with a replay of earlier
ones. Who is held out stays so, and all of them are measured on each time, so that the gate sees what is forgotten.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from segmed.active.labels import LabelRecord
from segmed.active.replay import replay_set
from segmed.active.retraining import Job, Outcome
from segmed.data.slices import SliceDataset
from segmed.training.job import hold_out
from segmed.training.model_version import ModelVersion
from segmed.training.registry import Registry

_NOTE = "retraining"


@dataclass(frozen=True)
class LessonConfig:
    """What is learnt in one retraining.

    Attributes:
        replay: earlier images that are learnt again, at most.
        validation: share of the images held out, as in the training itself.
        seed: of both draws, as in the training itself.
    """

    replay: int = 100
    validation: float = 0.2
    seed: int = 0


def learnt_until(jobs: Sequence[Job], job: Job) -> int:
    """Id of the newest label that the last version to be promoted before this job had learnt; 0 if there is none.

    Labels of a rejected retraining count as new in the next one.
    """
    return max((j.upto for j in jobs if j.id < job.id and j.model == job.model and j.state == "promoted"), default=0)


def select_training_images(
    data: SliceDataset, labels: Sequence[LabelRecord], since: int, upto: int, config: LessonConfig | None = None
) -> SliceDataset:
    """The images that a retraining learns from and is measured on.

    Args:
        data: all labelled slices; images are named as the labels name them.
        labels: all submissions. Labels without one, such as those copied into the studies, are earlier ones.
        since: id of the newest label that was learnt.
        upto: id of the newest label that counts; images labelled anew after it are left out.
        config: how much of the earlier labels.

    Returns:
        All that are held out, the new ones, and the replay; without labels that are held back or turned down.
        Patients are held out with all their images.

    Raises:
        ValueError: images of fewer than two patients are left.
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
    earlier = {image: newest[image].sizes if image in newest else () for image in train if image not in set(fresh)}
    replayed = replay_set(earlier, max(config.replay, 0 if fresh else 1), config.seed)
    return data.of_images({*checked, *fresh, *replayed})


def note_of(job: Job) -> dict[str, str]:
    """What a version remembers of the job that it came from; ids alone would repeat in a state that was begun anew."""
    return {_NOTE: f"{job.id} of {job.created!r}", "reason": job.reason}


@contextmanager
def training_lock(folder: Path) -> Iterator[None]:
    """Wait until no other process trains here, such as the orphan of a server that was killed."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".retraining.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True)
class TrainingSteps:
    """The steps of a retraining by `train_model`, which trains and decides in one call: all of it is the judgement.

    Attributes:
        registry: where versions are kept.
        run: trains with `note_of(job)` to the end; returns what to tell the user if no version was kept.
    """

    registry: Registry
    run: Callable[[Job], str]

    def train(self, job: Job) -> None:
        """Nothing; `judge` goes on from the training's own checkpoint."""

    def judge(self, job: Job) -> Outcome:
        """Train, have the gate decide, and find the version.

        Raises:
            RuntimeError: no version was kept.
        """
        message = self.run(job)
        found = self.outcome(job)
        if found is None:
            raise RuntimeError(message or "The training kept no version.")
        return found

    def outcome(self, job: Job) -> Outcome | None:
        """The version with this job's note. If a crash came between the verdict and its execution, it is served now."""
        note = note_of(job)[_NOTE]
        versions = self.registry.versions(job.model)
        mine = [v for v in versions if v.record is not None and v.record.settings.get(_NOTE) == note and not v.damage]
        if not mine or mine[-1].record is None or mine[-1].record.verdict is None:
            return None
        version, verdict = mine[-1], mine[-1].record.verdict
        if verdict.accepted and version == versions[-1] and not version.served and not self._left(version):
            self.registry.promote(job.model, version.version, verdict.reason)
        return Outcome(verdict.accepted, version.version, verdict.reason)

    def _left(self, version: ModelVersion) -> bool:
        """Whether it was served and somebody took it back."""
        return any(move.previous == version.version for move in self.registry.history(version.name))
