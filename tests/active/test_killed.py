"""Processes that are killed with SIGKILL in each step of a retraining: another one ends it, with one
version."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from segmed.active.continual import TrainingSteps, note_of
from segmed.active.retraining import Job, Retraining
from segmed.active.store.database import Database
from segmed.evaluation.case_scores import CaseScore
from segmed.registry import versions as registry_module
from segmed.registry.model_version import DataFingerprint, VersionRecord
from segmed.registry.versions import Registry

SCORES = tuple(CaseScore(f"case {n}", "liver", 0.9, 2.0) for n in range(8))
BEFORE = tuple(CaseScore(f"case {n}", "liver", 0.5, 9.0) for n in range(8))
DATA = DataFingerprint(("a", "b"), {"a": "1" * 64, "b": "2" * 64}, {"train": ("a",), "validation": ("b",)})
FACTS = {"method": "lora", "backbone": "abc", "image_size": 96, "config": {"rank": 4}}
POINTS = (
    "reserved",
    "before training",
    "after training",
    "before judging",
    "after judging",
    "trained",
    "kept",
    "served",
    "before promoted",
)


def _write(folder: Path) -> None:
    save_file({"a": torch.ones(4)}, folder / "weights.safetensors")
    (folder / "config.json").write_text(json.dumps(FACTS), encoding="utf-8")


def _steps(folder: Path, at: Callable[[str], None] = lambda point: None) -> TrainingSteps:
    registry = Registry(folder / "models")

    def run(job: Job) -> str:
        at("trained")
        if steps.outcome(job) is None:  # as the process that trains asks
            record = VersionRecord(SCORES, DATA, dict(note_of(job)))
            registry.decide("lora", _write, record, None, BEFORE)
        at("served")
        return ""

    steps = TrainingSteps(registry, run)
    return steps


def _die(folder: Path, point: str) -> None:
    """Carry out a retraining and be killed at a point."""

    def at(here: str) -> None:
        if here == point:
            os.kill(os.getpid(), signal.SIGKILL)

    class Dying(Retraining):
        def advance(self, job: Job, state: Any, version: str = "", message: str = "") -> Job:
            at(f"before {state}")
            job = super().advance(job, state, version, message)
            at(f"after {state}")
            return job

    class Pointer(registry_module.Pointer):
        def move(self, *arguments: Any) -> Any:
            at("kept")
            return super().move(*arguments)

    registry_module.Pointer = Pointer  # type: ignore[misc]
    retraining = Dying(Database(folder / "state"))
    job = retraining.reserve("lora", "20 labels")
    at("reserved")
    assert job
    retraining.carry_out(job, _steps(folder, at))
    at("after the end")


def _killed_at(folder: Path, point: str) -> None:
    process = multiprocessing.get_context("fork").Process(target=_die, args=(folder, point))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("point", POINTS)
def test_another_process_ends_it(tmp_path: Path, point: str) -> None:
    _killed_at(tmp_path, point)
    retraining = Retraining(Database(tmp_path / "state"))
    assert retraining.reserve("lora", "more labels") is None, "one at a time, be the other one dead"
    job = retraining.take_over()
    assert job is not None
    done = retraining.carry_out(job, _steps(tmp_path))
    assert done.state == "promoted", done.message
    (version,) = Registry(tmp_path / "models").versions("lora")
    assert (done.version, version.served) == (version.version, True)
    assert [j.id for j in retraining.jobs()] == [job.id]
    assert retraining.reserve("lora", "more labels") is not None


def test_after_the_end_there_is_nothing_to_take_over(tmp_path: Path) -> None:
    _killed_at(tmp_path, "after promoted")
    retraining = Retraining(Database(tmp_path / "state"))
    assert retraining.take_over() is None
    assert [job.state for job in retraining.jobs()] == ["promoted"]


def test_a_server_that_ends_in_good_order_costs_no_attempt(tmp_path: Path) -> None:
    database = Database(tmp_path / "state")
    owners = [Retraining(database, attempts=2, alive=lambda owner: False) for _ in range(6)]
    assert owners[0].reserve("lora", "")
    for before, after in itertools.pairwise(owners):
        before.give_back()
        job = after.take_over()
        assert job is not None
        assert job.attempts == 1
    owners[0].give_back()  # it is not its any more
    job = owners[-1].active()
    assert job is not None
    assert job.attempts == 1
    assert Retraining(database, attempts=2, alive=lambda owner: False).take_over() is not None
    assert Retraining(database, attempts=2, alive=lambda owner: False).take_over() is None
