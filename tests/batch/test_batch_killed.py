"""A run that is killed at any change of the manifest or of a file, and started again."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from batch_stand_in import StandIns, items
from segmed.batch.manifest import Manifest
from segmed.batch.pools import ThreadPool
from segmed.batch.report import collect, measurement_rows
from segmed.batch.scheduler import RunState, Scheduler

_EVERY = int(os.environ.get("SEGMED_KILL_STEP", "4"))  # 1 kills at each change
_FAULTS = {"0001": "unreadable", "0002": "sends", "0003": "sends", "0004": "bug"}
_CHANGES = ("open", "os.rename", "os.remove", "os.mkdir")


def _whole_run(folder: Path) -> None:
    manifest = Manifest(folder)
    if manifest.settings() is None:
        manifest.plan({"model": "m", "version": "v", "source": "s"}, items(6))
    manifest.recover()
    pool = ThreadPool(StandIns(folder, _FAULTS))
    Scheduler(manifest, pool, "v").run()
    pool.close()
    manifest.close()


def _killed(folder: Path, at: int, run: Callable[[Path], None]) -> bool:
    """Run in another process, which is killed at the change with this number; whether it was."""
    child = os.fork()
    if child == 0:
        count = 0

        def change(*_: object) -> None:
            nonlocal count
            count += 1
            if count == at:
                os.kill(os.getpid(), signal.SIGKILL)

        def on_file(event: str, arguments: tuple[object, ...]) -> None:
            if event in _CHANGES and str(arguments[0]).startswith(str(folder)):
                change()

        try:
            sys.addaudithook(on_file)
            before = Manifest.__init__

            def traced(self: Manifest, *given: object) -> None:
                before(self, *given)  # type: ignore[arg-type]
                self.sql.set_trace_callback(change)

            Manifest.__init__ = traced  # type: ignore[method-assign,assignment]
            run(folder)
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL), code
    return code != 0


def _results(folder: Path) -> tuple[object, ...]:
    files = {
        path.name: path.read_bytes()
        for path in sorted((folder / "masks").iterdir())
        if not path.name.startswith(".part-")
    }
    report = collect(folder)
    return files, list(measurement_rows(folder)), report.states, report.failures


def test_nothing_is_lost_or_doubled_wherever_a_run_is_killed(tmp_path: Path) -> None:
    _whole_run(tmp_path / "whole")
    wanted = _results(tmp_path / "whole")
    assert wanted[2] == {"done": 4, "failed": 2}
    at, killed = 1, True
    while killed:
        folder = tmp_path / str(at)
        folder.mkdir()
        killed = _killed(folder, at, _whole_run)
        _whole_run(folder)
        assert _results(folder) == wanted, f"killed at change {at}"
        assert set((folder / "pacs").read_text().split()) == {"0002", "0003"}
        at += _EVERY
    assert at > 60, "there are that many changes"


def test_a_run_that_is_killed_again_and_again_ends(tmp_path: Path) -> None:
    rounds = 0
    while _killed(tmp_path, 33, _whole_run):
        rounds += 1
        assert rounds < 40
    assert rounds > 1
    states = collect(tmp_path).states
    # an image that was under way each time counts as one that kills its workers
    assert set(states) <= {"done", "failed"} and sum(states.values()) == 6 and states["done"] >= 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_at_a_signal_items_under_way_are_finished(tmp_path: Path, number: int) -> None:
    from segmed.batch.runs import _ending_gently

    manifest = Manifest(tmp_path)
    manifest.plan({"model": "m", "version": "v", "source": "s"}, items(200))
    pool = ThreadPool(StandIns(tmp_path))

    def tell(state: RunState) -> None:
        if state.done >= 10 and not scheduler.stopped:
            os.kill(os.getpid(), number)

    scheduler = Scheduler(manifest, pool, tell=tell)
    before = signal.getsignal(number)
    with _ending_gently(scheduler, lambda text: None):
        state = scheduler.run()
    assert signal.getsignal(number) is before
    assert 10 <= state.done < 200 and "Run the same command again" in scheduler.stopped
    assert manifest.recover() == 0, "nothing was left under way"
    pool.close()
    manifest.close()
