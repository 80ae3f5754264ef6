"""Active learning through the real server: who gets which image, what is noted, and what follows from
labels."""

from __future__ import annotations

import contextlib
import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import nibabel as nib
import numpy as np
import psutil
import pytest
import requests
from clinic import BROKEN, CASES, NAMES, Clinic, labels_of, phantom_of
from running import Server, Start
from segmed.active.scoring.strategies import STRATEGIES
from segmed.evaluation.metrics import Overlap
from segmed.registry.versions import Registry

PROPOSAL_SHIFT = 2


@pytest.fixture(scope="module")
def clinic(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Clinic:
    studies = tmp_path_factory.mktemp("clinic")
    for n, name in enumerate(CASES):
        phantom = phantom_of(n)
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
    assert clinic.next("has it open", open=CASES[0]) == CASES[1:2]
    assert CASES[0] not in clinic.next("has it open", count=100, open=CASES[0])
    clinic.give_back("has it open")
    assert clinic.next("picky") == CASES[:1]
    assert clinic.next("picky", keep=True) == CASES[:1]
    assert clinic.next("picky") == CASES[1:2], "asked again, another one"
    told = clinic.ask("POST", "/api/active/skip", image=CASES[1], client_id="picky").json()
    assert told == {"image": CASES[1], "again": "when nothing else is left"}
    unwanted = {"image": CASES[2], "client_id": "picky"}
    assert clinic.ask("POST", "/api/active/not-this-one", **unwanted).json()["again"] == "never"
    everything = clinic.next("picky", count=100)
    assert sorted(everything) == sorted({*CASES, BROKEN} - {CASES[2]})
    assert clinic.next("other") == [CASES[2]]
    clinic.give_back("picky")
    clinic.give_back("other")
    batch = clinic.ask("POST", "/api/active/next", client="one of many", count=3).json()
    assert len({sample["id"] for sample in batch["samples"]}) == 3
    assert (batch["id"], batch["name"]) == (batch["samples"][0]["id"], f"{batch['id']}.nii.gz")
    again = clinic.ask("POST", "/api/active/next", client_id="one of many", count=3).json()["samples"]
    assert {sample["id"] for sample in again} == {sample["id"] for sample in batch["samples"]}
    clinic.give_back("one of many")


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/activelearning/oracle", {}, 404),
        ("/activelearning/random", {"count": 0}, 400),
        ("/activelearning/random", {"count": 101}, 400),
        ("/activelearning/random", {"count": "many"}, 400),
        ("/activelearning/random", {"keep": "yes"}, 400),
        ("/api/active/next", {"strategy": "oracle"}, 404),
        ("/api/active/skip", {"image": "nothing"}, 404),
        ("/api/active/skip", {"image": "../x"}, 400),
        ("/api/active/not-this-one", {"client_id": "ann"}, 422),
        ("/api/active/labels/99", {"keep": False}, 400),
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
    for strategy, note in (
        ("hybrid", ""),
        ("jitter", ""),
        ("core_set", ""),
        ("tta", "No image has a score for tta"),
    ):
        sample = clinic.ask("POST", f"/activelearning/{strategy}", client_id="curious").json()
        assert sample["note"].startswith(note) if note else not sample["note"]
        assert sample["id"] != BROKEN or note, "nothing is known of it"
    clinic.give_back("curious")


def test_users_without_a_name_are_told_apart_by_machine(clinic: Clinic) -> None:
    sample = clinic.server.client.next_sample("sequential", {})
    assert sample["path"] == ""
    assert sample["name"] == f"{sample['id']}.nii.gz"
    clinic.server.client.infer(
        "segmed", sample["id"], {"roi": [5, 20, 5, 20, 1, 1], "result_extension": ".nrrd"}
    )
    clinic.wait(lambda _: any(c["prompts"] for c in clinic.ask("GET", "/api/active/cases").json()))
    cases = clinic.ask("GET", "/api/active/cases").json()
    assert [c["user"] for c in cases if c["prompts"]] == ["user-xyz@127.0.0.1"]
    clinic.give_back("user-xyz")


def test_labels_and_the_work_on_them_are_noted(clinic: Clinic) -> None:
    before = clinic.status()["scoring"]
    assert clinic.next("ann") == CASES[:1]
    for _ in range(2):
        params = {"roi": [5, 20, 5, 20, 1, 1], "client_id": "ann"}
        url = f"{clinic.server.url}/infer/segmed?image={CASES[0]}&output=json"
        assert requests.post(url, data={"params": json.dumps(params)}, timeout=60).ok
    proposed = np.roll(labels_of(0), PROPOSAL_SHIFT, 0)
    clinic.submit(0, "ann", "original", proposed)
    assert clinic.labels() == []
    clinic.submit(0, "ann")
    assert clinic.next("bob") == CASES[1:2]
    clinic.give_back("bob")
    clinic.wait(lambda _: clinic.labels())
    label = clinic.labels()[0]
    truth = {name: labels_of(0) == value for value, name in enumerate(NAMES, 1)}
    dice = {name: Overlap.of(np.roll(mask, PROPOSAL_SHIFT, 0), mask).dice() for name, mask in truth.items()}
    assert label["sizes"] == {name: int(mask.sum()) for name, mask in truth.items()}
    assert label["agreement"] == pytest.approx(dice)
    assert (label["user"], label["image"], label["state"]) == ("ann", CASES[0], "kept")
    case = next(c for c in clinic.ask("GET", "/api/active/cases").json() if c["user"] == "ann")
    assert (case["prompts"], case["strategy"], case["label"]) == (2, "sequential", label["id"])
    assert 0 < case["seconds"] < 120
    assert case["model"] == "segmed"
    status = clinic.status()
    assert status["dice"] == pytest.approx(dice, abs=1e-4)
    assert (status["cases"]["finished"], status["cases"]["prompts"]) == (1, 2)
    scored = clinic.ask("POST", "/scoring/dice").json()
    assert scored["dice"] == pytest.approx(dice)
    # it is known now where objects are, so that all scores are computed again
    clinic.wait(lambda s: s["scoring"]["scored"] > before["scored"])
    assert clinic.status()["scoring"]["version"] != before["version"]


def test_a_deleted_label_is_forgotten(clinic: Clinic) -> None:
    clinic.submit(1, "bob", labels=np.zeros((48, 48, 2), np.uint8), prompts=9, seconds=33.5, model="page")
    clinic.wait(lambda _: len(clinic.labels()) == 2)
    case = next(c for c in clinic.ask("GET", "/api/active/cases").json() if c["label"] == 2)
    assert [case[key] for key in ("user", "prompts", "seconds", "model")] == ["bob", 9, 33.5, "page"]
    requests.delete(f"{clinic.server.url}/datastore/label?id={CASES[1]}&tag=final", timeout=60)
    clinic.wait(lambda s: s["labelled"] == 1)
    assert [record["state"] for record in clinic.labels()] == ["kept", "deleted"]
    assert clinic.next("bob") == CASES[1:2]
    clinic.give_back("bob")


def _trainings(server: Server) -> list[psutil.Process]:
    """Processes that train; one that has just ended is none."""
    found = []
    for process in psutil.Process(server.process.pid).children(True):
        with contextlib.suppress(psutil.NoSuchProcess):  # of which a zombie is one
            found += [process] if "train" in process.cmdline() else []
    return found


def test_three_labels_begin_one_retraining_that_a_restart_does_not_stop(clinic: Clinic) -> None:
    reserved = clinic.next("dora", count=2)
    clinic.submit(3, "ann")
    assert clinic.status()["retraining"]["jobs"] == 0
    clinic.submit(4, "ann")
    begun = clinic.wait(lambda s: s["retraining"]["jobs"])["retraining"]
    assert begun["reason"] == "3 images were labelled since the last training."
    clinic.wait(lambda _: _trainings(clinic.server))
    assert clinic.ask("POST", "/train/segmed").status_code == 429, "one at a time, whoever asks"
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
    # a process that is slow to start may see labels that came meanwhile
    assert set(record.data.images) >= {f"{CASES[n]}.nii.gz" for n in (0, 3, 4)}
    clinic.wait(lambda _: _trainings(clinic.server))
    clinic.server.process.kill()
    clinic.server.process.wait(20)
    clinic.restart()
    clinic.wait(lambda _: clinic.retrainings()[-1]["attempts"] == 2)
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
