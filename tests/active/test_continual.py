"""What a retraining learns from, and that it comes to one verdict however often it is killed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from segmed.active.continual import LessonConfig, TrainingSteps, learnt_until, note_of, select_training_images
from segmed.active.retraining import Job, JobState, Retraining
from segmed.active.store.database import Database
from segmed.active.store.labels import LabelRecord, LabelState
from segmed.active.store.process_id import ProcessId
from segmed.data.slices import SliceDataset
from segmed.inference.loading import BackboneConfig
from segmed.registry.versions import Registry
from segmed.training.finetune_config import FinetuneConfig
from segmed.training.job import JobConfig, hold_out, train_model
from small_training import make_discs, small_sam

ALL = [f"v{n}" for n in range(8)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SliceDataset:
    return make_discs(tmp_path_factory.mktemp("cases"), volumes=8)


def _label(
    number: int, image: str, state: LabelState = "kept", names: tuple[str, ...] = ("bright",)
) -> LabelRecord:
    return LabelRecord(number, image, "ann", "c", dict.fromkeys(names, 9), {}, state, "", "", 0.0)


def _job(number: int, state: JobState = "judging", upto: int = 0, created: float = 1.5) -> Job:
    return Job(number, "medsam", state, "3 labels", ProcessId(1, 1, ""), 1, upto, "", "", created, 0.0)


def test_a_lesson_is_what_is_new_and_a_replay(data: SliceDataset) -> None:
    labels = [_label(n, image) for n, image in enumerate(ALL, 1)]
    split = hold_out(ALL, 0.2, 0)
    held_out, train = set(split["validation"]), split["train"]
    new = {image for n, image in enumerate(ALL, 1) if n > 5} & set(train)
    for replay in (0, 1, 2, 100):
        found = set(select_training_images(data, labels, 5, 8, LessonConfig(replay)).patients)
        assert held_out | new <= found
        assert len(found - held_out - new) == min(replay, len(train) - len(new))
    assert hold_out(sorted(found), 0.2, 0)["validation"] == split["validation"]


def test_what_is_held_dropped_or_too_new_is_left_out(data: SliceDataset) -> None:
    labels = [_label(n, image) for n, image in enumerate(ALL, 1)]
    labels[2] = replace(labels[2], state="held")
    labels[3] = replace(labels[3], state="dropped")
    labels.append(_label(9, "v4"))  # labelled anew after the job was reserved
    labels.append(_label(10, "v5", "deleted"))  # of that only the first label counts
    found = set(select_training_images(data, labels, 0, 8).patients)
    assert found == {"v0", "v1", "v5", "v6", "v7"}


def test_labels_without_a_submission_are_replayed(data: SliceDataset) -> None:
    assert set(select_training_images(data, [], 0, 0).patients) == set(ALL)
    alone = select_training_images(data, [], 0, 0, LessonConfig(replay=0)).patients
    assert (
        len(alone) == len(hold_out(ALL, 0.2, 0)["validation"]) + 1
    )  # nothing new, but there is something to learn


def test_a_replay_has_each_class(data: SliceDataset) -> None:
    rare = hold_out(ALL, 0.2, 0)["train"][-1]
    labels = [
        _label(n, image, names=("dark",) if image == rare else ("bright",)) for n, image in enumerate(ALL, 1)
    ]
    assert rare in select_training_images(data, labels, 8, 8, LessonConfig(replay=2)).patients


def test_the_images_of_a_patient_are_held_out_together(data: SliceDataset) -> None:
    """As series in a PACS: labels are of images, and models are checked on patients."""
    owned = [replace(v, patient=f"p{n // 2}", image_id=ALL[n]) for n, v in enumerate(data.volumes)]
    series = SliceDataset(owned, data.classes, data.unit, data.binary)
    labels = [_label(n, image) for n, image in enumerate(ALL, 1)]
    labels[0] = replace(labels[0], state="held")
    found = select_training_images(series, labels, 6, 8, LessonConfig(replay=0))
    held_out = hold_out(series.patients, 0.2, 0)["validation"]
    checked = {image for image, who in series.images.items() if who in held_out} - {"v0"}
    assert checked and set(found.images) == checked | ({"v6", "v7"} - checked)
    assert "v0" not in found.images
    again = {
        who
        for image, who in select_training_images(series, labels, 0, 8).images.items()
        if who not in held_out
    }
    assert again == set(series.patients) - set(held_out)


def test_one_label_is_too_few(data: SliceDataset) -> None:
    labels = [_label(n, image, "held" if n else "kept") for n, image in enumerate(ALL)]
    with pytest.raises(ValueError, match="There are 1 labelled cases"):
        select_training_images(data, labels, 0, 9)


def test_labels_of_a_rejected_retraining_are_new_in_the_next() -> None:
    jobs = [_job(1, "promoted", 5), _job(2, "rejected", 9), _job(3, "failed", 12), _job(4, upto=15)]
    assert learnt_until(jobs, jobs[3]) == 5
    assert learnt_until(jobs, jobs[0]) == 0


class Trainer:
    """Trains with the job's note, as the server's process does."""

    def __init__(
        self, data: SliceDataset, backbone: BackboneConfig, registry: Registry, folder: Path
    ) -> None:
        self.data, self.backbone, self.registry, self.folder = data, backbone, registry, folder
        self.calls = 0
        self.config: Mapping[str, Any] = {"preset": "full"}

    def __call__(self, job: Job) -> str:
        self.calls += 1
        config = JobConfig(self.config, FinetuneConfig(epochs=1, batch=3))
        arguments = (self.data, self.registry, self.folder, config)
        return train_model("medsam", self.backbone, *arguments, note=note_of(job)).message


@pytest.fixture
def trainer(data: SliceDataset, tmp_path: Path) -> Trainer:
    small_sam().save_pretrained(tmp_path / "base")
    backbone = BackboneConfig(str(tmp_path / "base"), precision="fp32")
    return Trainer(data.of(["v0", "v1", "v2"]), backbone, Registry(tmp_path / "registry"), tmp_path / "run")


def test_one_training_gives_one_verdict_that_is_found_again(trainer: Trainer, tmp_path: Path) -> None:
    retraining = Retraining(Database(tmp_path / "state"), alive=lambda owner: False)
    job = retraining.reserve("medsam", "three labels")
    assert job is not None
    steps = TrainingSteps(trainer.registry, trainer)
    assert steps.outcome(job) is None
    first = steps.judge(job)  # killed before the verdict was written down
    version = trainer.registry.versions("medsam")[0]
    assert version.record is not None
    assert version.record.verdict is not None
    assert version.record.settings["reason"] == "three labels"
    assert version.record.settings["retraining"] == f"1 of {job.created!r}"
    assert (first.version, first.promoted) == (version.version, version.record.verdict.accepted)
    later = Retraining(retraining.database, alive=lambda owner: False)
    taken = later.take_over()
    assert taken is not None
    done = later.carry_out(taken, steps)
    assert (done.version, done.state) == (first.version, "promoted" if first.promoted else "rejected")
    assert trainer.calls == 1
    other = Retraining(Database(tmp_path / "begun anew")).reserve("medsam", "three labels")
    assert other is not None
    assert other.id == job.id
    assert steps.outcome(other) is None, "a state that was lost begins to count at one again"


def test_a_verdict_that_a_crash_kept_from_its_execution_is_executed_once(trainer: Trainer) -> None:
    job = _job(1)
    steps = TrainingSteps(trainer.registry, trainer)
    trainer(job)
    folder = trainer.registry.versions("medsam")[0].folder
    text = (folder / "metrics.json").read_text()
    (folder / "metrics.json").write_text(text.replace('"accepted": false', '"accepted": true'))
    (folder.parent / "current").unlink(missing_ok=True)
    (folder.parent / "history.jsonl").unlink(missing_ok=True)
    assert trainer.registry.served("medsam") is None
    outcome = steps.outcome(job)
    assert outcome is not None
    assert outcome.promoted
    served = trainer.registry.served("medsam")
    assert served is not None
    assert served.version == outcome.version
    trainer.registry.rollback("medsam")
    assert steps.outcome(job) == outcome
    assert trainer.registry.served("medsam") is None, "somebody took it back"


def test_a_training_that_keeps_no_version_fails(trainer: Trainer, tmp_path: Path) -> None:
    retraining = Retraining(Database(tmp_path / "state"))
    job = retraining.reserve("medsam", "")
    assert job is not None
    done = retraining.carry_out(job, TrainingSteps(trainer.registry, lambda job: "It was stopped by hand."))
    assert (done.state, done.message) == ("failed", "It failed while judging: It was stopped by hand.")
    trainer.config = {"preset": "none"}
    job = retraining.reserve("medsam", "")
    assert job is not None
    done = retraining.carry_out(job, TrainingSteps(trainer.registry, trainer))
    assert done.state == "failed"
    assert "preset" in done.message
