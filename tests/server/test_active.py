"""Active learning through the real server: who gets which image, what is noted, and what follows from labels."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import psutil
import pytest
import requests
from monailabel.datastore.local import LocalDatastore
from running import Server, Start
from segmed.active.database import Database
from segmed.active.state import ActiveState
from segmed.active.strategies import STRATEGIES
from segmed.data.phantom import Phantom, make_phantom
from segmed.evaluation.metrics import Overlap
from segmed.server.engine import Engine
from segmed.server.learning import ActiveLearning
from segmed.server.learning_settings import LearningSettings
from segmed.server.settings import ServerSettings
from segmed.server.studies import Studies
from segmed.server.throttle import Cancelled, Throttle
from segmed.training.registry import Registry

NAMES = ("liver", "spleen")
CASES = [f"case {n}" for n in range(8)]
BROKEN = "case 8"
PROPOSAL_SHIFT = 2


def _phantom(n: int) -> Phantom:
    return make_phantom("MR", shape=(48, 48, 2), spacing=(7.0, 7.0, 40.0), seed=n)


def _labels(n: int) -> np.ndarray:
    found = _phantom(n).labels
    return np.where(found <= len(NAMES), found, 0).astype(np.uint8)


class Clinic:
    """A server that is started anew on the same studies and models."""

    def __init__(self, start: Start, studies: Path, registry: Path) -> None:
        self._start, self.studies, self.registry = start, studies, registry
        self.server = self.restart()

    def restart(self) -> Server:
        words = {
            "registry": str(self.registry),
            "models": "segmed",
            "labels": ",".join(NAMES),
            "strategy": "hybrid",
            "retrain_after": "3",
            "retrain_options": "epochs=1,batch=8,learning_rate=0.001,device=cpu",
        }
        self.server = self._start(self.studies, *(w for key, value in words.items() for w in ("--conf", key, value)))
        return self.server

    def ask(self, method: str, path: str, **body: Any) -> requests.Response:
        return requests.request(method, f"{self.server.url}{path}", json=body or None, timeout=120)

    def next(self, user: str, strategy: str = "sequential", **more: Any) -> list[str]:
        answer = self.ask("POST", f"/activelearning/{strategy}", client_id=user, **more)
        assert answer.ok, answer.text
        return [sample["id"] for sample in answer.json().get("samples", [])]

    def give_back(self, user: str) -> None:
        """Leave the user with nothing."""
        for image in self.next(user, count=1):
            assert self.ask("POST", "/activelearning/skip", image=image, client_id=user).ok

    def status(self) -> dict[str, Any]:
        return dict(self.ask("GET", "/activelearning/").json())

    def labels(self, **query: str) -> list[dict[str, Any]]:
        return list(requests.get(f"{self.server.url}/activelearning/labels", query, timeout=60).json())

    def submit(self, n: int, user: str, tag: str = "final", labels: np.ndarray | None = None) -> None:
        path = self.server.temporary / f"{n}-{tag}.nii.gz"
        nib.save(nib.Nifti1Image(_labels(n) if labels is None else labels, _phantom(n).affine), path)
        info = {"label_info": [{"name": name, "idx": k} for k, name in enumerate(NAMES, 1)], "client_id": user}
        with path.open("rb") as file:
            answer = requests.put(
                f"{self.server.url}/datastore/label?image={CASES[n]}&tag={tag}",
                data={"params": json.dumps(info)},
                files={"label": (path.name, file)},
                timeout=60,
            )
        path.unlink()
        assert answer.ok, answer.text

    def wait(self, until: Callable[[dict[str, Any]], Any], seconds: float = 900) -> dict[str, Any]:
        """The status as soon as it is as wanted."""
        deadline = time.monotonic() + seconds
        while not until(status := self.status()):
            assert time.monotonic() < deadline, (status, self.server.log.read_text(encoding="utf-8")[-3000:])
            time.sleep(0.3)
        return status


@pytest.fixture(scope="module")
def clinic(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Clinic:
    studies = tmp_path_factory.mktemp("clinic")
    for n, name in enumerate(CASES):
        phantom = _phantom(n)
        nib.save(nib.Nifti1Image(phantom.image, phantom.affine), studies / f"{name}.nii.gz")
    (studies / f"{BROKEN}.nii.gz").write_bytes(b"no image")
    return Clinic(start, studies, tmp_path_factory.mktemp("registry"))


def test_all_strategies_are_listed_the_chosen_one_first(clinic: Clinic) -> None:
    info = clinic.server.client.info()
    assert next(iter(info["strategies"])) == "hybrid"
    assert set(info["strategies"]) == set(STRATEGIES)
    assert info["strategies"]["jitter"]["description"] == STRATEGIES["jitter"].title
    assert set(info["scoring"]) == {"images", "dice"}
    assert (clinic.studies / ".segmed" / "active.sqlite3").is_file()


def test_users_who_ask_at_once_never_have_one_image(clinic: Clinic) -> None:
    users = [f"user {n}" for n in range(4)]
    with ThreadPoolExecutor(4) as pool:
        had = list(pool.map(lambda user: clinic.next(user, "random", count=2), users))
    assert [len(images) for images in had] == [2] * 4
    assert len({image for images in had for image in images}) == 8
    assert len(clinic.next("late", count=9)) == 1
    assert clinic.next("too late") == []
    assert clinic.ask("POST", "/activelearning/random", client_id="too late").json() == {}
    assert sorted(clinic.next(users[0], count=2)) == sorted(had[0])
    assert clinic.status()["reserved"] == 9
    for user in [*users, "late"]:
        clinic.give_back(user)
    assert clinic.status()["reserved"] == 0


def test_skipped_images_come_last_and_unwanted_ones_never(clinic: Clinic) -> None:
    assert clinic.next("picky") == CASES[:1]
    assert clinic.next("picky", keep=True) == CASES[:1]
    assert clinic.next("picky") == CASES[1:2], "asked again, another one"
    told = clinic.ask("POST", "/activelearning/skip", image=CASES[1], client_id="picky").json()
    assert told == {"image": CASES[1], "again": "when nothing else is left"}
    unwanted = {"image": CASES[2], "client_id": "picky"}
    assert clinic.ask("POST", "/activelearning/not-this-one", **unwanted).json()["again"] == "never"
    everything = clinic.next("picky", count=100)
    assert sorted(everything) == sorted({*CASES, BROKEN} - {CASES[2]})
    assert clinic.next("other") == [CASES[2]]
    clinic.give_back("picky")
    clinic.give_back("other")


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/activelearning/oracle", {}, 404),
        ("/activelearning/random", {"count": 0}, 400),
        ("/activelearning/random", {"count": 101}, 400),
        ("/activelearning/random", {"count": "many"}, 400),
        ("/activelearning/random", {"keep": "yes"}, 400),
        ("/activelearning/skip", {"image": "nothing"}, 404),
        ("/activelearning/skip", {"image": "../x"}, 400),
        ("/activelearning/not-this-one", {"client_id": "ann"}, 422),
        ("/activelearning/labels/99", {"keep": False}, 400),
        ("/scoring/oracle", {}, 422),
    ],
)
def test_what_is_wrong_is_said(clinic: Clinic, path: str, body: dict[str, Any], status: int) -> None:
    answer = clinic.ask("POST", path, **(body or {"client_id": "ann"}))
    assert answer.status_code == status, answer.text
    assert answer.json()["detail"]


def test_images_are_scored_in_the_background_and_it_can_be_stopped(clinic: Clinic) -> None:
    assert requests.delete(f"{clinic.server.url}/scoring/", timeout=60).json()["paused"]
    before = clinic.status()["scoring"]["scored"]
    time.sleep(1)
    assert clinic.status()["scoring"]["scored"] <= before + 1
    assert not clinic.ask("POST", "/scoring/images").json()["paused"]
    status = clinic.wait(lambda s: s["scoring"]["left"] == 0)
    assert status["scoring"]["scored"] >= len(CASES) + 1, "the broken one is looked at once"
    time.sleep(1)
    assert clinic.status()["scoring"]["scored"] == status["scoring"]["scored"]
    for strategy, note in (("hybrid", ""), ("jitter", ""), ("core_set", ""), ("tta", "No image has a score for tta")):
        sample = clinic.ask("POST", f"/activelearning/{strategy}", client_id="curious").json()
        assert sample["note"].startswith(note) if note else not sample["note"]
        assert sample["id"] != BROKEN or note, "nothing is known of it"
    clinic.give_back("curious")


def test_users_without_a_name_are_told_apart_by_machine(clinic: Clinic) -> None:
    sample = clinic.server.client.next_sample("sequential", {})
    assert sample["path"] == ""
    assert sample["name"] == f"{sample['id']}.nii.gz"
    clinic.server.client.infer("segmed", sample["id"], {"roi": [5, 20, 5, 20, 1, 1], "result_extension": ".nrrd"})
    clinic.wait(lambda _: any(c["prompts"] for c in clinic.ask("GET", "/activelearning/cases").json()))
    cases = clinic.ask("GET", "/activelearning/cases").json()
    assert [c["user"] for c in cases if c["prompts"]] == ["user-xyz@127.0.0.1"]
    clinic.give_back("user-xyz")


def test_labels_and_the_work_on_them_are_noted(clinic: Clinic) -> None:
    before = clinic.status()["scoring"]
    assert clinic.next("ann") == CASES[:1]
    for _ in range(2):
        params = {"roi": [5, 20, 5, 20, 1, 1], "client_id": "ann"}
        url = f"{clinic.server.url}/infer/segmed?image={CASES[0]}&output=json"
        assert requests.post(url, data={"params": json.dumps(params)}, timeout=60).ok
    proposed = np.roll(_labels(0), PROPOSAL_SHIFT, 0)
    clinic.submit(0, "ann", "original", proposed)
    assert clinic.labels() == []
    clinic.submit(0, "ann")
    assert clinic.next("bob") == CASES[1:2]
    clinic.give_back("bob")
    clinic.wait(lambda _: clinic.labels())
    label = clinic.labels()[0]
    truth = {name: _labels(0) == value for value, name in enumerate(NAMES, 1)}
    dice = {name: Overlap.of(np.roll(mask, PROPOSAL_SHIFT, 0), mask).dice() for name, mask in truth.items()}
    assert label["sizes"] == {name: int(mask.sum()) for name, mask in truth.items()}
    assert label["agreement"] == pytest.approx(dice)
    assert (label["user"], label["image"], label["state"]) == ("ann", CASES[0], "kept")
    case = next(c for c in clinic.ask("GET", "/activelearning/cases").json() if c["user"] == "ann")
    assert (case["prompts"], case["strategy"], case["label"]) == (2, "sequential", label["id"])
    assert 0 < case["seconds"] < 120
    scored = clinic.ask("POST", "/scoring/dice").json()
    assert scored["dice"] == pytest.approx(dice)
    # it is known now where objects are, so that all scores are made anew
    clinic.wait(lambda s: s["scoring"]["scored"] > before["scored"])
    assert clinic.status()["scoring"]["version"] != before["version"]


def test_a_deleted_label_is_forgotten(clinic: Clinic) -> None:
    clinic.submit(1, "bob", labels=np.zeros((48, 48, 2), np.uint8))
    clinic.wait(lambda _: len(clinic.labels()) == 2)
    requests.delete(f"{clinic.server.url}/datastore/label?id={CASES[1]}&tag=final", timeout=60)
    clinic.wait(lambda s: s["labelled"] == 1)
    assert [record["state"] for record in clinic.labels()] == ["kept", "deleted"]
    assert clinic.next("bob") == CASES[1:2]
    clinic.give_back("bob")


def _trainings(server: Server) -> list[psutil.Process]:
    return [p for p in psutil.Process(server.process.pid).children(True) if "train" in p.cmdline()]


def test_three_labels_begin_one_retraining_that_a_restart_does_not_stop(clinic: Clinic) -> None:
    reserved = clinic.next("dora", count=2)
    clinic.submit(3, "ann")
    assert clinic.status()["retraining"]["jobs"] == 0
    clinic.submit(4, "ann")
    begun = clinic.wait(lambda s: s["retraining"]["jobs"])["retraining"]
    assert begun["reason"] == "3 images were labelled since the last training."
    for n in (5, 6, 7):
        clinic.submit(n, "bob")
    most = 0

    def ended(status: dict[str, Any]) -> bool:
        nonlocal most
        most = max(most, len(_trainings(clinic.server)))
        return status["retraining"]["jobs"] > 1

    # the labels that came meanwhile begin the next one as soon as this one has ended
    status = clinic.wait(ended)
    assert most == 1
    first = Registry(clinic.registry).versions("segmed")
    assert len(first) == 1
    record = first[0].record
    assert record is not None
    assert record.verdict is not None
    assert record.settings["retraining"].startswith("1 of ")
    assert set(record.data.images) == {f"{CASES[n]}.nii.gz" for n in (0, 3, 4)}
    clinic.wait(lambda _: _trainings(clinic.server))
    os.kill(clinic.server.process.pid, signal.SIGKILL)
    clinic.server.process.wait(20)
    clinic.restart()
    status = clinic.wait(lambda s: s["retraining"]["state"] in ("promoted", "rejected", "failed"))
    assert status["retraining"]["state"] in ("promoted", "rejected"), status
    assert status["retraining"]["jobs"] == 2
    versions = Registry(clinic.registry).versions("segmed")
    notes = [v.record.settings["retraining"].split(" of ")[0] for v in versions if v.record]
    assert notes == ["1", "2"]
    assert status["retraining"]["version"] == versions[1].version
    assert versions[1].record is not None
    assert set(versions[1].record.data.images) == {f"{CASES[n]}.nii.gz" for n in (0, 3, 4, 5, 6, 7)}
    assert sorted(clinic.next("dora", count=2)) == sorted(reserved), "reservations outlive the server"
    assert [r["id"] for r in clinic.labels(state="kept")] == [1, 3, 4, 5, 6, 7]
    served = Registry(clinic.registry).served("segmed")
    stats = clinic.server.client.info()["trainers"]["segmed"]["versions"]
    assert [v["version"] for v in stats if v["served"]] == ([served.version] if served else [])


def test_nothing_is_left_behind(clinic: Clinic) -> None:
    assert clinic.server.left_behind() == []
    assert sorted(p.name for p in clinic.studies.iterdir() if p.name.startswith(".")) == [".lock", ".segmed"]


class Clock:
    """Time that a test moves; waiting moves it, too."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


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
    rng = np.random.default_rng(0)
    folder = tmp_path / "studies"
    folder.mkdir()
    truth = np.zeros((40, 40, 3), np.uint8)
    truth[8:25, 10:30] = 1
    for n in range(8):
        grey = np.where(truth, 200, 40) + rng.integers(0, 20, truth.shape)
        nib.save(nib.Nifti1Image(grey.astype(np.int16), np.eye(4)), folder / f"i{n}.nii.gz")
    store = LocalDatastore(str(folder), extensions=["*.nii.gz"])
    settings = ServerSettings.from_conf({"models": "classical", "labels": "organ"})
    learning = ActiveLearning(Engine(settings, Registry(tmp_path / "r")), str(folder), lambda: store, lambda name: None)  # type: ignore[arg-type, return-value]

    def submit(n: int, labels: np.ndarray) -> None:
        nib.save(nib.Nifti1Image(labels, np.eye(4)), tmp_path / "label.nii.gz")
        store.save_label(f"i{n}", str(tmp_path / "label.nii.gz"), "final", {"client_id": "ann"})
        learning.submitted(f"i{n}", "ann")
        learning.tick()

    for n in range(6):
        submit(n, truth)
    assert learning.log.labels("held") == []
    noise = (rng.random(truth.shape) < 0.05).astype(np.uint8)
    submit(6, noise)
    submit(7, np.zeros_like(truth))
    held = learning.log.labels("held")
    assert [record.image for record in held] == ["i6"]
    assert "differs wildly" in held[0].reason
    assert learning.status()["held"] == 1
    learning.log.review(held[0].id, True, "chief")
    learning.tick()
    assert len(learning.log.usable()) == 8
    assert learning.scorer.step()  # the scorer knows where objects were
    assert learning.scorer.version.endswith(" 1")


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
