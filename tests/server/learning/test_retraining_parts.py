"""Trainings that the server begins: they end with it, fail without being waited for, and hold up scoring."""

from __future__ import annotations

import errno
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from monailabel.utils.async_tasks import utils as background
from practice import Practice, wait_until
from segmed.active.policy import RetrainConfig
from segmed.methods.base.segmenter import Segmenter
from segmed.server.app import SegMedApp
from segmed.server.learning.throttle import Cancelled


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
    wait_until(lambda: not retrainer.running() and practice.learning.status()["retraining"]["jobs"])
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
