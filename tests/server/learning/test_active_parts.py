"""The parts of active learning on the server, each by itself: studies, learning, settings."""

from __future__ import annotations

import errno
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from dicom_phantom import phantom_series
from monailabel.datastore.local import LocalDatastore
from practice import Practice, wait_until
from segmed.active.store.database import Database
from segmed.active.store.labels import Effort
from segmed.active.store.state import ActiveState
from segmed.imaging.grid import read_grid
from segmed.registry.versions import Registry
from segmed.server.config.learning_settings import LearningSettings
from segmed.server.config.settings import ServerSettings
from segmed.server.datastores.dicom_folder import DicomFolderStudies
from segmed.server.datastores.studies import Studies
from segmed.server.engine import Engine
from segmed.server.http.errors import BadRequest
from segmed.server.learning import label_intake as label_desk
from segmed.server.learning.learning import ActiveLearning


def test_the_folder_watcher_does_not_mind_the_state(tmp_path: Path) -> None:
    store = LocalDatastore(str(tmp_path), extensions=["*.nii.gz", "*.png", "*.nii"], auto_reload=True)
    events: list[Any] = []
    store._handler.on_created = store._handler.on_deleted = store._handler.on_modified = events.append
    state = ActiveState(Database(tmp_path / ".segmed"))
    state.observe({"a": "1"}, [])
    state.propose("random", "ann")
    shutil.copy(__file__, tmp_path / "picture.png")
    deadline = time.monotonic() + 20
    while not events and time.monotonic() < deadline:
        time.sleep(0.05)
    store._observer.stop()
    assert {Path(event.src_path).name for event in events} == {"picture.png"}


def test_a_list_that_is_being_made_is_no_deletion(tmp_path: Path) -> None:
    for name in ("a 10", "a 9", "b.1"):
        shutil.copy(__file__, tmp_path / f"{name}.png")
    store = LocalDatastore(str(tmp_path), extensions=["*.png"])
    studies = Studies(lambda: store, {})
    first = studies.look()
    assert first is not None
    assert list(first.images) == ["a 9", "a 10", "b.1"]
    store.save_label("b.1", str(tmp_path / "a 9.png"), "final", {"client_id": "ann"})
    labelled = studies.look(first.images, first.labelled)
    assert labelled is not None
    assert labelled.labelled == {"b.1"}
    assert studies.submitter("b.1") == "ann"
    kept = dict(store._datastore.objects)
    store._datastore.objects.clear()
    assert studies.look(first.images, labelled.labelled) is None
    store._datastore.objects.update(kept)
    label = store._datastore.objects["b.1"].labels.pop("final")
    assert studies.look(first.images, labelled.labelled) is None
    store._datastore.objects["b.1"].labels["final"] = label
    store.remove_image("a 10")
    left = studies.look(first.images, labelled.labelled)
    assert left is not None
    assert list(left.images) == ["a 9", "b.1"]
    store.remove_label("b.1", "final")
    left = studies.look(left.images, left.labelled)
    assert left is not None
    assert left.labelled == frozenset()


def test_noise_is_held_for_review(tmp_path: Path) -> None:
    practice = Practice(tmp_path, 8)
    learning, truth, submit = practice.learning, practice.truth, practice.submit
    for n in range(6):
        submit(n, truth)
    assert learning.log.labels("held") == []
    noise = (np.random.default_rng(0).random(truth.shape) < 0.05).astype(np.uint8)
    submit(6, noise)
    submit(7, np.zeros_like(truth))
    held = learning.log.labels("held")
    assert [record.image for record in held] == ["i6"]
    assert "differs strongly" in held[0].reason
    assert learning.status()["held"] == 1
    learning.log.review(held[0].id, True, "chief")
    learning.tick()
    assert len(learning.log.usable()) == 8
    assert learning.scorer.step()  # the scorer knows where objects were
    assert learning.scorer.version.endswith(" 1")


@pytest.mark.parametrize("strategy", ["random", "sequential", "jitter", "core_set", "typicality", "hybrid"])
def test_studies_with_nothing_or_one_image_left(tmp_path: Path, strategy: str) -> None:
    practice = Practice(tmp_path, 0)
    assert practice.next("ann", strategy, 5) == []
    assert not practice.learning.scorer.step()
    practice.add("i0")
    practice.store.refresh()
    assert practice.next("ann", strategy, 5) == ["i0"]
    assert practice.next("bob", strategy) == []
    assert practice.learning.scorer.step()
    practice.submit(0, practice.truth)
    assert practice.next("bob", strategy) == []
    practice.store.remove_label("i0", "final")
    practice.learning.observe()
    assert practice.next("bob", strategy) == ["i0"]
    assert [record.state for record in practice.learning.log.labels()] == ["deleted"]


def test_a_full_disk_is_told_and_survived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    practice = Practice(tmp_path, 2)
    learning = practice.learning
    learning.observe()

    def full(self: Database) -> Any:
        raise OSError(
            errno.ENOSPC, "The state of active learning cannot be kept: the disk is full; make room", "/x/y"
        )

    with monkeypatch.context() as patch:
        patch.setattr(Database, "write", full)
        for call in (
            lambda: learning.next("random", "ann", 1, False),
            lambda: learning.skip("i0", "ann", False),
            lambda: learning.review(1, True, "ann"),
        ):
            with pytest.raises(BadRequest, match="the disk is full; make room") as refused:
                call()
            assert refused.value.status == 507
            assert "/x/y" not in str(refused.value)
        with pytest.raises(OSError, match="disk is full"):
            practice.submit(0, practice.truth)
        assert learning.status()["labelled"] == 1, "the label is saved, and nobody is offered the image"
    learning.tick()
    assert [(record.image, record.user) for record in learning.log.labels()] == [("i0", "ann")]
    assert practice.next("bob", count=5) == ["i1"]


def test_the_background_goes_on_after_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segmed.server.learning.learning._RECOVER", 0.05)
    practice = Practice(tmp_path, 1, scoring="off")
    learning, broken = practice.learning, threading.Event()
    broken.set()
    whole = Studies.look

    def look(self: Studies, *arguments: Any) -> Any:
        if broken.is_set():
            raise BadRequest("The PACS does not answer.", 424)
        return whole(self, *arguments)

    monkeypatch.setattr(Studies, "look", look)
    learning.start()
    wait_until(lambda: learning.problem)
    assert learning.status()["problem"] == "The PACS does not answer."
    broken.clear()
    wait_until(lambda: not learning.problem)
    assert learning.status()["images"] == 1
    learning.close()


def test_a_label_that_cannot_be_read_keeps_nothing_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    practice = Practice(tmp_path, 2)
    read = label_desk.read_submission

    def refuse(final: Any, proposal: Any = None) -> Any:
        if final.file.name.startswith("i0"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return read(final, proposal)

    with monkeypatch.context() as patch:
        patch.setattr(label_desk, "read_submission", refuse)
        practice.submit(0, practice.truth)
        practice.submit(1, practice.truth)
        assert [record.image for record in practice.learning.log.labels()] == ["i1"]
    practice.learning.tick()
    assert [record.image for record in practice.learning.log.labels()] == ["i1", "i0"]
    (practice.studies / "labels" / "final" / "i0.nii.gz").write_bytes(b"cut off")
    practice.learning.submitted("i0", "bob")
    practice.learning.tick()
    assert dict(practice.learning.log.labels()[-1].sizes) == {}


def test_contradicting_labels_are_both_noted(tmp_path: Path) -> None:
    practice = Practice(tmp_path, 1)
    practice.submit(0, practice.truth, "ann")
    practice.submit(0, np.roll(practice.truth, 3, 0), "bob")
    practice.submit(0, np.roll(practice.truth, 3, 0), "bob")  # saved again, nothing new
    log = practice.learning.log
    assert [record.user for record in log.labels()] == ["ann", "bob"]
    assert [record.user for record in log.usable()] == ["bob"], "whose file it is"
    assert practice.learning.status()["contested"] == 1


@pytest.mark.parametrize(
    ("info", "effort"),
    [
        ({"prompts": 4, "seconds": 20.5, "model": "segmed"}, Effort(4, 20.5, "segmed")),
        ({"model": {"name": "lora", "version": "0003-ab"}}, Effort(model="lora 0003-ab")),
        ({"prompts": -1, "seconds": float("nan"), "model": None}, Effort()),
        ({"prompts": "many", "seconds": True}, Effort()),
        ({"prompts": 1e300, "seconds": float("inf")}, Effort()),
    ],
)
def test_what_a_viewer_tells_of_the_work(tmp_path: Path, info: dict[str, Any], effort: Effort) -> None:
    practice = Practice(tmp_path, 1)
    practice.submit(0, practice.truth, **info)
    assert practice.learning.studies.effort("i0") == effort
    (case,) = practice.learning.log.cases()
    assert (case.prompts, case.model) == (effort.prompts or 0, effort.model)


def test_series_of_dicom_files(tmp_path: Path) -> None:
    folder = tmp_path / "studies"
    for n in range(2):
        phantom_series(folder / "patient" / str(n), shape=(24, 24, 3), spacing=(14.0, 14.0, 60.0), seed=n)
    store = DicomFolderStudies(folder, ["CT"])
    engine = Engine(ServerSettings.from_conf({"models": "classical"}), Registry(tmp_path / "registry"))
    learning = ActiveLearning(engine, str(folder), lambda: store, lambda name: None)  # type: ignore[arg-type, return-value]
    assert (folder / ".segmed" / "active.sqlite3").is_file(), "beside the labels"
    learning.observe()
    first, second = sorted(store.list_images())
    assert learning.status()["images"] == 2
    assert [p.image for p in learning.next("sequential", "ann", 2, False)] == store.list_images()
    assert learning.scorer.step()
    labels = np.zeros((24, 24, 3), np.uint8)
    labels[5:12, 5:12] = 1
    affine = read_grid(store.get_image_uri(first)).affine
    nib.save(nib.Nifti1Image(labels, affine), tmp_path / "label.nii.gz")
    store.save_label(
        first, str(tmp_path / "label.nii.gz"), "final", {"label_info": [{"name": "liver"}], "prompts": 3}
    )
    learning.submitted(first, "ann")
    learning.tick()
    (record,) = learning.log.labels()
    assert (record.image, dict(record.sizes)) == (first, {"liver": 147})
    learning.observe()
    assert [p.image for p in learning.next("sequential", "ann", 2, False)] == [second]
    store.remove_label(first, "final")
    learning.observe()
    assert {p.image for p in learning.next("sequential", "ann", 2, False)} == {first, second}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "list_images", list)
        patch.setattr(store, "get_labeled_images", list)
        assert learning.studies.look(store.facts(first).series, ()) is None, "a list without any is none"


def test_a_folder_of_labels_that_is_gone_is_a_deletion(tmp_path: Path) -> None:
    practice = Practice(tmp_path, 2)
    practice.submit(0, practice.truth)
    shutil.rmtree(practice.studies / "labels" / "final")
    del practice.store._datastore.objects["i0"].labels["final"]
    practice.learning.observe()
    assert practice.learning.status()["labelled"] == 0


@pytest.mark.parametrize(
    ("conf", "words"),
    [
        ({"strategy": "oracle"}, "no strategy 'oracle'"),
        ({"active_model": "sam"}, "active_model 'sam' must be one of segmed, classical"),
        ({"scoring": "yes"}, "must be auto, on or off"),
        ({"retrain_after": "2.5"}, "whole where it counts images"),
        ({"retrain_hours": "soon"}, "must be a number such as 0"),
        ({"retrain_on_drift": "1"}, "must be true or false"),
        ({"reserve_minutes": "0"}, "two users one image"),
        ({"retrain_options": "epochs"}, "Write epochs=10"),
        ({"replay": "-1"}, "0 or a positive number"),
    ],
)
def test_settings_are_checked(conf: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ServerSettings.from_conf({"models": "segmed,classical", **conf})


def test_settings_are_read() -> None:
    found = ServerSettings.from_conf(
        {
            "models": "classical,segmed",
            "retrain_after": "7",
            "retrain_options": "epochs=3, preset = full",
            "replay": "5",
        }
    ).learning
    assert (found.model, found.policy.labels, found.replay) == ("segmed", 7, 5)
    assert found.options == {"epochs": "3", "preset": "full"}
    assert ServerSettings.from_conf({"models": "classical"}).learning.policy.labels == 0
    assert set(LearningSettings.KEYS) <= set(ServerSettings.KEYS)
