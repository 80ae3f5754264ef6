"""A retraining that is killed at each step ends all the same, once, and only one runs at a time."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from segmed.active.retraining import Job, LostJobError, Outcome, Retraining
from segmed.active.store.clock import boot_id
from segmed.active.store.database import Database
from segmed.active.store.labels import LabelLog
from segmed.active.store.process_id import ProcessId, is_alive


class Killed(BaseException):
    """Stands for the end of the process."""


@dataclass
class World:
    """What survives a crash: weights on the disk and the registry."""

    epochs: int = 0
    versions: list[str] = field(default_factory=list)


@dataclass
class FakeSteps:
    """Trains two epochs, keeps a version; `die` is asked at each point by its name."""

    world: World
    die: Callable[[str], None] = lambda point: None
    promoted: bool = True

    def train(self, job: Job) -> None:
        while self.world.epochs < 2:
            self.die("train")
            self.world.epochs += 1

    def judge(self, job: Job) -> Outcome:
        self.die("judge")
        self.world.versions.append("0001-aa")
        self.die("judged")
        return Outcome(self.promoted, "0001-aa", "better")

    def outcome(self, job: Job) -> Outcome | None:
        return Outcome(self.promoted, self.world.versions[-1], "better") if self.world.versions else None


class Dying(Retraining):
    """Dies before or after a given step is written down."""

    point: str = ""

    def advance(self, job: Job, state: str, version: str = "", message: str = "") -> Job:  # type: ignore[override]
        if self.point == f"before {state}":
            raise Killed
        job = super().advance(job, state, version, message)  # type: ignore[arg-type]
        if self.point == f"after {state}":
            raise Killed
        return job


POINTS = (
    "before training",
    "after training",
    "train",
    "before judging",
    "after judging",
    "judge",
    "judged",
    "before promoted",
)


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_retraining_is_finished_by_the_next_process(tmp_path: Path, point: str) -> None:
    world = World()

    def die(here: str) -> None:
        if here == point:
            raise Killed

    dying = Dying(Database(tmp_path))
    dying.point = point
    job = dying.reserve("lora", "20 labels")
    assert job
    with pytest.raises(Killed):
        dying.carry_out(job, FakeSteps(world, die))
    after = Retraining(Database(tmp_path), alive=lambda owner: False)
    assert after.active() is not None
    assert after.reserve("lora", "again") is None
    found = after.take_over()
    assert found is not None
    assert (found.id, found.attempts, found.owner) == (job.id, 2, after.owner)
    done = after.carry_out(found, FakeSteps(world))
    assert (done.state, done.version, done.message) == ("promoted", "0001-aa", "better")
    assert world == World(2, ["0001-aa"])  # judged once, trained to the end
    assert after.active() is None
    assert after.take_over() is None
    with pytest.raises(LostJobError):  # the first one comes back from the dead
        Retraining.advance(dying, replace(found, owner=dying.owner, state="judging"), "failed")


def test_a_kill_after_the_end_changes_nothing(tmp_path: Path) -> None:
    dying = Dying(Database(tmp_path))
    dying.point = "after promoted"
    job = dying.reserve("lora", "")
    assert job
    with pytest.raises(Killed):
        dying.carry_out(job, FakeSteps(World()))
    assert Retraining(Database(tmp_path), alive=lambda owner: False).take_over() is None


def test_an_orphan_of_our_own_is_taken_over(tmp_path: Path) -> None:
    dying = Dying(Database(tmp_path))
    dying.point = "before judging"
    job = dying.reserve("lora", "")
    assert job
    assert dying.take_over() is None  # it is being carried out
    with pytest.raises(Killed):
        dying.carry_out(job, FakeSteps(World()))
    dying.point = ""
    assert Retraining(Database(tmp_path)).take_over() is None  # our process is alive
    again = dying.take_over()
    assert again
    assert dying.carry_out(again, FakeSteps(World(), promoted=False)).state == "rejected"


def test_errors_fail_the_job_and_too_many_deaths_too(tmp_path: Path) -> None:
    machine = Retraining(Database(tmp_path), attempts=2, alive=lambda owner: False)

    def break_(point: str) -> None:
        raise ValueError("The labels of case 7 were deleted.")

    job = machine.reserve("lora", "")
    assert job
    failed = machine.carry_out(job, FakeSteps(World(), break_))
    assert failed.state == "failed"
    assert "case 7" in failed.message
    second = machine.reserve("lora", "")
    assert second
    assert second.id > job.id
    others = [Retraining(Database(tmp_path), attempts=2, alive=lambda owner: False) for _ in range(2)]
    assert others[0].take_over() is not None
    assert others[1].take_over() is None
    assert machine.jobs()[-1].state == "failed"
    assert "2 times" in machine.jobs()[-1].message


def test_only_the_steps_that_there_are(tmp_path: Path) -> None:
    machine = Retraining(Database(tmp_path))
    job = machine.reserve("lora", "")
    assert job
    with pytest.raises(ValueError, match="training, failed"):
        machine.advance(job, "promoted")
    machine.advance(job, "training")
    with pytest.raises(LostJobError):
        machine.advance(job, "training")


def _reserve_and_die(folder: Path) -> None:
    assert Retraining(Database(folder)).reserve("lora", "")
    os.kill(os.getpid(), signal.SIGKILL)


def _reserve(folder: Path, out: multiprocessing.Queue[bool]) -> None:
    out.put(Retraining(Database(folder)).reserve("lora", "") is not None)


def test_real_processes(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    out: multiprocessing.Queue[bool] = context.Queue()
    workers = [context.Process(target=_reserve, args=(tmp_path / "a", out)) for _ in range(3)]
    for worker in workers:
        worker.start()
    assert sorted(out.get(timeout=60) for _ in workers) == [False, False, True]
    victim = context.Process(target=_reserve_and_die, args=(tmp_path / "b",))
    victim.start()
    for worker in (*workers, victim):
        worker.join(60)
    assert victim.exitcode == -signal.SIGKILL
    for folder in ("a", "b"):
        found = Retraining(Database(tmp_path / folder)).take_over()
        assert found
        assert found.attempts == 2


def test_a_number_used_again_is_another_process() -> None:
    me = ProcessId.current()
    assert is_alive(me)
    assert me.started > 0
    assert not is_alive(replace(me, started=me.started - 1))
    assert not is_alive(replace(me, boot="another"))
    assert not is_alive(ProcessId(2**22 + 1, 1, boot_id()))


def test_situation_counts_from_the_last_verdict(tmp_path: Path) -> None:
    database = Database(tmp_path)
    log, machine = LabelLog(database), Retraining(database)
    for n in range(3):
        log.record(f"i{n}", "ann", "c", {"x": 1})
    log.record("i2", "bob", "d", {"x": 1})
    assert machine.situation().new_labels == 3  # images, not submissions
    job = machine.reserve("lora", "")
    assert job
    log.record("i5", "ann", "c", {"x": 1})  # comes during the training
    assert machine.situation().busy
    machine.carry_out(job, FakeSteps(World(), promoted=False))
    after = machine.situation("drift!")
    assert (after.busy, after.new_labels, after.failures, after.drift) == (False, 1, 0, "drift!")
    bad = machine.reserve("lora", "")
    assert bad
    machine.advance(machine.advance(bad, "training"), "failed")
    assert (machine.situation().new_labels, machine.situation().failures) == (1, 1)
