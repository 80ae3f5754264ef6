"""The parts of active learning on the server, each by itself: throttle, studies, learning, retrainer,
settings."""

from __future__ import annotations

import errno
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from dicom_phantom import phantom_series
from monailabel.datastore.local import LocalDatastore
from monailabel.utils.async_tasks import utils as background
from segmed.active.policy import RetrainConfig
from segmed.active.store.database import Database
from segmed.active.store.labels import Effort
from segmed.active.store.state import ActiveState
from segmed.imaging.grid import read_grid
from segmed.methods.base.segmenter import Segmenter
from segmed.registry.versions import Registry
from segmed.server.app import SegMedApp
from segmed.server.config.learning_settings import LearningSettings
from segmed.server.config.settings import ServerSettings
from segmed.server.datastores.dicom_folder import DicomFolderStudies
from segmed.server.datastores.studies import Studies
from segmed.server.engine import Engine
from segmed.server.http.errors import BadRequest
from segmed.server.learning import label_intake as label_desk
from segmed.server.learning.learning import ActiveLearning
from segmed.server.learning.throttle import Cancelled, Throttle


class Clock:
    """Time that a test moves; waiting moves it, too."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Practice:
    """Active learning without a server, on images of a bright box; nothing goes on behind the test."""

    def __init__(self, folder: Path, images: int, **conf: str) -> None:
        self.folder, self.studies = folder, folder / "studies"
        self.studies.mkdir()
        self.truth = np.zeros((40, 40, 3), np.uint8)
        self.truth[8:25, 10:30] = 1
        for n in range(images):
            self.add(f"i{n}")
        self.store = LocalDatastore(str(self.studies), extensions=["*.nii.gz"])
        self.learning = self.restart(**conf)

    def restart(self, **conf: str) -> ActiveLearning:
        settings = ServerSettings.from_conf({"models": "classical", "labels": "organ", **conf})
        engine = Engine(settings, Registry(self.folder / "registry"))
        self.learning = ActiveLearning(engine, str(self.studies), lambda: self.store, lambda name: None)  # type: ignore[arg-type, return-value]
        return self.learning

    def add(self, name: str) -> None:
        grey = np.where(self.truth, 200, 40) + np.random.default_rng(len(name)).integers(
            0, 20, self.truth.shape
        )
        nib.save(nib.Nifti1Image(grey.astype(np.int16), np.eye(4)), self.studies / f"{name}.nii.gz")

    def submit(self, n: int, labels: np.ndarray, user: str = "ann", **info: Any) -> None:
        nib.save(nib.Nifti1Image(labels, np.eye(4)), self.folder / "label.nii.gz")
        self.store.save_label(
            f"i{n}", str(self.folder / "label.nii.gz"), "final", {"client_id": user, **info}
        )
        self.learning.submitted(f"i{n}", user)
        self.learning.tick()

    def next(self, user: str, strategy: str = "hybrid", count: int = 1) -> list[str]:
        return [p.image for p in self.learning.next(strategy, user, count, False)]


def test_background_work_takes_its_share_and_no_more() -> None:
    clock = Clock()
    throttle = Throttle(share=0.05, quiet=1.0, idle=20.0, clock=clock)
    assert throttle.delay() == 0
    with throttle.piece():
        clock.now += 0.5
    assert throttle.delay() == 0, "nobody is there"
    with throttle.request():
        assert throttle.delay() == np.inf
    assert throttle.delay() == 9.5, "half a second of work in ten"
    clock.now += 9.5
    with throttle.request():
        pass
    assert throttle.delay() == 1.0
    clock.now += 1.0
    for _ in range(10):
        with throttle.piece():
            clock.now += 0.2
        with throttle.request():  # a user who never stops for long
            pass
        began = clock.now
        clock.now += throttle.delay()
        assert clock.now - began == pytest.approx(3.8)
    clock.now += 20
    assert throttle.delay() == 0
    with throttle.piece():
        clock.now += 3  # a slow model
    with throttle.request():
        pass
    clock.now += 30
    assert throttle.delay() == 27, "twenty seconds without a request are not enough for pieces of three"
    clock.now += 27
    assert throttle.delay() == 0
    with throttle.request(), pytest.raises(Cancelled), throttle.piece(lambda: True):
        pass
    with pytest.raises(ValueError, match="share of 0"):
        Throttle(share=0)


def test_a_piece_waits_for_the_request_that_runs() -> None:
    throttle = Throttle(quiet=0.05, idle=0.1)
    order = []

    def work() -> None:
        with throttle.piece():
            order.append("piece")

    with throttle.request():
        thread = threading.Thread(target=work)
        thread.start()
        time.sleep(0.3)
        order.append("request")
    thread.join(5)
    assert order == ["request", "piece"]
    with throttle.request(), throttle.piece(at_most=0.1):
        order.append("labels are examined all the same")
    assert len(order) == 3


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
    _until(lambda: learning.problem)
    assert learning.status()["problem"] == "The PACS does not answer."
    broken.clear()
    _until(lambda: not learning.problem)
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


class Trainer:
    """Stands for the trainer of a model."""

    def announce(self) -> None: ...

    def stats(self) -> dict[str, Any]:
        return {}


def _begin_retraining(
    practice: Practice, monkeypatch: pytest.MonkeyPatch, carry_out: Callable[..., None]
) -> None:
    """Have one label begin a retraining, whose process is begun by `carry_out`."""
    retrainer = practice.learning.retrainer
    monkeypatch.setattr(retrainer, "_trainer", lambda name: Trainer())
    retrainer.settings = replace(retrainer.settings, policy=RetrainConfig(1))
    for kind in ("tasks", "processes", "executors"):
        monkeypatch.setattr(background, f"background_{kind}", {})
    monkeypatch.setattr(
        "segmed.server.learning.retrainer.background_executors", background.background_executors
    )
    monkeypatch.setattr(background, "_task_func", carry_out)
    practice.submit(0, practice.truth)
    practice.learning.tick()  # all model agreements are known


def test_trainings_end_with_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[subprocess.Popen[bytes]] = []

    def train(task: dict[str, Any], method: str, callback: Any = None) -> None:
        time.sleep(0.2)  # it is being begun when the server ends
        begun.append(subprocess.Popen(["sleep", "100"]))
        background.background_processes[method][task["id"]] = begun[-1]
        begun[-1].wait()

    practice = Practice(tmp_path, 1)
    _begin_retraining(practice, monkeypatch, train)
    background.run_background_task({"model": "lora"}, "train")  # a user's, which waits
    practice.learning.close()
    assert [process.wait(10) for process in begun] == [-signal.SIGTERM]
    job = practice.learning.retrainer.retraining.active()
    assert job is not None
    assert job.attempts == 0, "the next server's is the first attempt"
    assert practice.restart().retrainer.retraining.take_over() is None, "this process is alive"


def test_a_training_that_cannot_begin_fails_and_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_process(*arguments: Any) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    practice = Practice(tmp_path, 1)
    retrainer = practice.learning.retrainer
    _begin_retraining(practice, monkeypatch, no_process)
    _until(lambda: not retrainer.running() and practice.learning.status()["retraining"]["jobs"])
    told = practice.learning.status()["retraining"]
    assert (told["state"], told["message"]) == (
        "failed",
        "It failed while judging: The process that trained has died.",
    )
    assert [task["status"] for task in background.tasks("train")] == ["ERROR"], "a user may train again"
    retrainer.check()
    assert practice.learning.status()["retraining"]["jobs"] == 1, "it waits a while before the next"


def test_an_app_that_only_trains_begins_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segmed.server.app.monailabel_settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD", False)
    (tmp_path / "studies").mkdir()
    before = {thread.name for thread in threading.enumerate()}
    conf = {"models": "classical", "registry": str(tmp_path / "registry"), "scoring": "on"}
    SegMedApp(str(tmp_path), str(tmp_path / "studies"), conf)
    assert {thread.name for thread in threading.enumerate()} <= before


@pytest.mark.parametrize("whose", ["a retraining", "a user's training"])
def test_scoring_stands_still_while_a_training_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    practice = Practice(tmp_path, 2)
    learning, scorer = practice.learning, practice.learning.scorer
    learning.observe()
    assert scorer.step()
    running = {"a training": object()}
    if whose == "a retraining":
        monkeypatch.setattr(learning.retrainer, "running", lambda: bool(running))
    else:
        monkeypatch.setitem(background.background_processes, "train", running)
    assert not scorer.step() and scorer.scored == 1
    running.clear()
    embed = Segmenter.embed

    def begins(self: Segmenter, slices: Any) -> Any:
        running["another one"] = object()
        return embed(self, slices)

    with monkeypatch.context() as patch, pytest.raises(Cancelled):
        patch.setattr(Segmenter, "embed", begins)
        scorer.step()
    assert scorer.scored == 1, "it stops within the image"
    running.clear()
    assert scorer.step() and scorer.scored == 2


def test_pieces_come_one_at_a_time() -> None:
    throttle, inside, most = Throttle(share=1), [], 0

    def work() -> None:
        nonlocal most
        for _ in range(20):
            with throttle.piece():
                inside.append(1)
                most = max(most, len(inside))
                time.sleep(0.001)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most == 1
    assert throttle.spent >= 0.06


def test_impatient_pieces_take_their_share_and_no_more() -> None:
    clock = Clock()
    throttle = Throttle(share=0.05, clock=clock)
    with throttle.request():
        pass
    with throttle.piece(at_most=0):
        clock.now += 1.0
    waited = threading.Event()

    def again() -> None:
        with throttle.piece(at_most=0):
            waited.set()

    thread = threading.Thread(target=again)
    with throttle.request():
        thread.start()
        assert not waited.wait(0.5), "a second of work in twenty"
        clock.now += 19
        assert waited.wait(10), "in spite of the request"
    thread.join(10)


def _until(done: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


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
