"""Training from the viewer: submit labels, press Train, get a better model, never a worse one."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import nrrd
import numpy as np
import psutil
import pytest
import requests
from running import Server, Start
from segmed.data.phantom import Phantom, make_phantom
from segmed.evaluation.metrics import Overlap
from segmed.methods.detector.detector import DetectorConfig
from segmed.methods.featup.featup import FeatUpConfig
from segmed.methods.gafl.gafl import GaflConfig
from segmed.registry.versions import Registry
from segmed.server.tasks.train import choices
from segmed.training.job import hold_out

NAMES = ("liver", "spleen")
CASES = [f"case{n}" for n in range(6)]
HELD_OUT = "heldout"
QUICK = {"epochs": 3, "epoch_steps": 1, "batch": 8, "patience": 3, "learning_rate": 1e-3, "device": "cpu"}


def _phantom(seed: int) -> Phantom:
    """With more noise than the model has learnt to see through."""
    found = make_phantom("MR", shape=(48, 48, 10), spacing=(7.0, 7.0, 20.0), seed=seed, noise=4.0)
    return replace(found, labels=np.where(found.labels <= len(NAMES), found.labels, 0).astype(np.uint8))


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("registry")


@pytest.fixture(scope="module")
def clinic(start: Start, registry: Path, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A server on six labelled volumes and one that nobody has labelled."""
    studies = tmp_path_factory.mktemp("clinic")
    for n, name in enumerate([*CASES, HELD_OUT]):
        phantom = _phantom(n)
        nib.save(nib.Nifti1Image(phantom.image, phantom.affine), studies / f"{name}.nii.gz")
    words = {"registry": str(registry), "models": "segmed,lora", "labels": ",".join(NAMES)}
    server = start(studies, *(w for key, value in words.items() for w in ("--conf", key, value)))
    for n, name in enumerate(CASES):
        _submit(server, name, _phantom(n).labels, _phantom(n).affine)
    return server


def _all_but_the_liver(liver: np.ndarray) -> np.ndarray:
    """What is in the liver's box on each slice and is not liver."""
    wrong = np.zeros(liver.shape, np.uint8)
    for k in np.flatnonzero(liver.any(axis=(0, 1))):
        i, j = (np.flatnonzero(liver[:, :, k].any(axis)) for axis in (1, 0))
        box = np.s_[i[0] : i[-1] + 1, j[0] : j[-1] + 1, k]
        wrong[box] = ~liver[box]
    return wrong


def _submit(server: Server, image: str, labels: np.ndarray, affine: np.ndarray) -> None:
    path = server.temporary / f"{image}-submitted.nii.gz"
    nib.save(nib.Nifti1Image(labels.astype(np.uint8), affine), path)
    info = {"label_info": [{"name": name, "idx": n} for n, name in enumerate(NAMES, 1)], "client_id": "user"}
    with path.open("rb") as file:
        answer = requests.put(
            f"{server.url}/datastore/label?image={image}",
            data={"params": json.dumps(info)},
            files={"label": (path.name, file)},
            timeout=60,
        )
    path.unlink()
    assert answer.ok, answer.text


def _train(server: Server, model: str, **more: Any) -> requests.Response:
    return requests.post(f"{server.url}/train/{model}", json={**QUICK, **more}, timeout=60)


def _wait(server: Server, until: Callable[[dict[str, Any]], bool], seconds: float = 240) -> dict[str, Any]:
    """The status of the training as soon as it is as wanted."""
    deadline = time.monotonic() + seconds
    while True:
        status: dict[str, Any] = requests.get(f"{server.url}/train/", timeout=30).json()
        if until(status):
            return status
        assert time.monotonic() < deadline, status
        time.sleep(0.3)


def _ended(status: dict[str, Any]) -> bool:
    return status["status"] not in ("SUBMITTED", "RUNNING")


def _stats(server: Server, model: str) -> dict[str, Any]:
    return dict(server.client.info()["train_stats"].get(model, {}))


def _masks(server: Server) -> tuple[np.ndarray, float]:
    """The box prompt on every labelled slice of the volume that nobody labelled, and its mean Dice."""
    truth = _phantom(len(CASES)).labels == 1
    found, dice = np.zeros_like(truth), []
    for k in np.flatnonzero(truth.any(axis=(0, 1))):
        i, j = (np.flatnonzero(truth[:, :, k].any(axis)) for axis in (1, 0))
        roi = [int(i[0]), int(i[-1]), int(j[0]), int(j[-1]), int(k), int(k)]
        file, _ = server.client.infer(
            "segmed", HELD_OUT, {"roi": roi, "result_extension": ".nrrd", "device": "cpu"}
        )
        found[:, :, k] = nrrd.read(file)[0][:, :, k] > 0
        dice.append(Overlap.of(found[:, :, k], truth[:, :, k]).dice())
    return found, float(np.mean(dice))


def test_trainers_and_their_options_are_listed(clinic: Server) -> None:
    trainers = clinic.client.info()["trainers"]
    assert set(trainers) == {"segmed", "lora"}
    assert trainers["segmed"]["config"]["preset"] == ["deep", "decoder"]
    assert trainers["lora"]["config"]["rank"] == 4
    assert "lora" not in clinic.client.info()["models"]


def test_clients_cannot_name_files_of_the_server() -> None:
    assert choices(GaflConfig)["preset"] == ["gafl", "brats", "segmed"]
    for config in (DetectorConfig, FeatUpConfig):
        assert not {"jbu", "start", "prompter_weights"} & set(choices(config))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"epochs": 0}, "epochs 0 must be between 1 and 10000"),
        ({"batch": "many"}, "batch 'many' must be a number such as 8"),
        ({"preset": "best"}, "preset 'best' is not allowed. Choose one of deep, decoder"),
        ({"device": "tpu"}, "device 'tpu' is not allowed"),
        ({"augment": "perhaps"}, "augment 'perhaps' must be true or false"),
    ],
)
def test_options_are_checked(clinic: Server, params: dict[str, Any], message: str) -> None:
    answer = _train(clinic, "segmed", **params)
    assert answer.status_code == 400
    assert message in answer.json()["detail"]


def test_unknown_trainers_are_refused(clinic: Server) -> None:
    assert _train(clinic, "nothing").status_code == 404


def test_training_makes_the_next_prompt_better_and_a_rollback_undoes_it(
    clinic: Server, registry: Path
) -> None:
    before, dice_before = _masks(clinic)
    asked = _train(clinic, "segmed", name="../../evil", train_ds="/etc/passwd")
    assert asked.ok, asked.text
    assert not {"name", "train_ds"} & set(asked.json()["request"])
    assert _train(clinic, "segmed").status_code == 429
    running = _wait(clinic, lambda status: _ended(status) or "epoch" in _stats(clinic, "segmed"))
    if not _ended(running):
        assert _stats(clinic, "segmed")["total_epochs"] == 3
    status = _wait(clinic, _ended)
    assert status["status"] == "DONE", status
    stats = _stats(clinic, "segmed")
    assert stats["state"] == "finished"
    assert "Better than the untrained method" in stats["message"], stats
    assert 0 < stats["best_metric"] <= 1
    told = clinic.client.info()["trainers"]["segmed"]["versions"]
    assert [v["served"] for v in told] == [True]
    after, dice_after = _masks(clinic)
    assert dice_after > dice_before
    assert not np.array_equal(before, after)
    Registry(registry).rollback("segmed")
    assert np.array_equal(_masks(clinic)[0], before)
    Registry(registry).promote("segmed", told[0]["version"])
    assert np.array_equal(_masks(clinic)[0], after)
    kept = registry / "segmed" / told[0]["version"]
    assert {"curves.png", "validation.png", "log.jsonl"} <= {p.name for p in kept.iterdir()}


def test_kill_and_resume_then_lora_labels_volumes_by_itself(clinic: Server) -> None:
    options = {"epochs": 8, "epoch_steps": 1, "batch": 4, "patience": 8, "learning_rate": 5e-3}
    assert _train(clinic, "lora", **options).ok
    _wait(clinic, lambda status: _ended(status) or _stats(clinic, "lora").get("epoch", 0) >= 3)
    reached = _stats(clinic, "lora")["epoch"]
    trainings = [p for p in psutil.Process(clinic.process.pid).children(True) if "train" in p.cmdline()]
    assert trainings
    for process in trainings:
        os.kill(process.pid, signal.SIGKILL)
    assert _wait(clinic, _ended)["status"] == "ERROR"
    assert _stats(clinic, "lora")["state"] == "interrupted"
    assert "lora" not in clinic.client.info()["models"]
    assert _train(clinic, "lora", **options).ok
    _wait(clinic, lambda status: _ended(status) or _stats(clinic, "lora").get("epoch", 0) > reached)
    status = _wait(clinic, _ended)
    assert status["status"] == "DONE", status
    assert clinic.client.info()["models"]["lora"]["labels"] == list(NAMES)
    file, told = clinic.client.infer("lora", HELD_OUT, {"result_extension": ".nrrd"})
    labels = nrrd.read(file)[0]
    assert told["label_names"] == {"liver": 1, "spleen": 2}
    assert Overlap.of(labels == 1, _phantom(len(CASES)).labels == 1).dice() > 0.5


def test_stop_keeps_what_was_learnt(clinic: Server) -> None:
    assert _train(clinic, "lora", epochs=500, epoch_steps=1, patience=500).ok
    _wait(clinic, lambda status: _ended(status) or _stats(clinic, "lora").get("epoch", 0) >= 2)
    stopped = requests.delete(f"{clinic.url}/train/", timeout=60).json()
    assert stopped["status"] == "STOPPED"
    assert _stats(clinic, "lora")["state"] == "stopped"
    assert requests.delete(f"{clinic.url}/train/", timeout=60).json() is None


def test_poisoned_labels_are_stopped_by_the_gate(clinic: Server, registry: Path) -> None:
    served = Registry(registry).served("segmed")
    assert served is not None
    for name in hold_out(CASES, 0.2, 0)["train"]:
        phantom = _phantom(CASES.index(name))
        _submit(clinic, name, _all_but_the_liver(phantom.labels == 1), phantom.affine)
    assert _train(clinic, "segmed").ok
    assert _wait(clinic, _ended)["status"] == "DONE"
    now = Registry(registry)
    assert len(now.versions("segmed")) == 2
    still = now.served("segmed")
    assert still is not None
    assert still.version == served.version
    told = clinic.client.info()["trainers"]["segmed"]["versions"]
    assert [v["served"] for v in told] == [True, False]
    assert told[1]["gate"] in _stats(clinic, "segmed")["message"]
