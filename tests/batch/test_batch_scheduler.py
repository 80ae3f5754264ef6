"""The loop of a run: what ends how, and what is given when."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from batch_stand_in import StandIns, items
from segmed.batch.items import Shard
from segmed.batch.manifest import MOST_TRIES, Manifest
from segmed.batch.pools import ThreadPool, outcome_of
from segmed.batch.report import collect, measurement_rows
from segmed.batch.runs import ServerCourtesy
from segmed.batch.scheduler import Courtesy, Limits, RunState, Scheduler
from segmed.batch.tasks import Outcome, Task
from segmed.inference.device_use import SIGN, answering, seconds_since_answer


@pytest.fixture
def manifest(tmp_path: Path) -> Iterator[Manifest]:
    found = Manifest(tmp_path)
    found.plan({"model": "m", "version": "v", "source": "s"}, items(20))
    yield found
    found.close()


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        time.sleep(0)


def _run(manifest: Manifest, faults: dict[str, str] | None = None, **more: object) -> tuple[RunState, str]:
    pool = ThreadPool(StandIns(manifest.folder, faults or {}))
    try:
        scheduler = Scheduler(manifest, pool, "v", **more)  # type: ignore[arg-type]
        return scheduler.run(), scheduler.stopped
    finally:
        pool.close()


def _rows(manifest: Manifest, columns: str) -> list[tuple[object, ...]]:
    return [tuple(row) for row in manifest.sql.execute(f"SELECT {columns} FROM items ORDER BY id")]


def test_all_items_are_done_and_measured_once(manifest: Manifest) -> None:
    told: list[RunState] = []
    state, stopped = _run(manifest, tell=told.append)
    assert (state.done, state.failed, state.total, stopped) == (20, 0, 20, "")
    assert told[-1].seconds_left == 0 and told[-1].rate > 0
    assert [row["image"] for row in measurement_rows(manifest.folder)] == [f"{n:04d}" for n in range(20)]
    assert {row[0] for row in _rows(manifest, "model_version")} == {"v"}
    assert len(list((manifest.folder / "masks").iterdir())) == 20


def test_one_item_does_not_end_the_run(manifest: Manifest) -> None:
    state, stopped = _run(manifest, {"0003": "unreadable", "0005": "bug"})
    assert (state.done, state.failed, stopped) == (18, 2, "")
    rows = {row[0]: row[1:] for row in _rows(manifest, "key, state, tries, error")}
    assert rows["0003"] == ("failed", 1, "The image 0003 cannot be read.")
    assert rows["0005"] == ("failed", MOST_TRIES, "ZeroDivisionError: division by zero")
    report = collect(manifest.folder)
    assert {group.examples for group in report.failures} == {("0003",), ("0005",)}
    assert manifest.retry_failed() == 2
    assert _run(manifest)[0].done == 20 and collect(manifest.folder).is_complete


def test_results_are_sent_once(manifest: Manifest) -> None:
    state, _ = _run(manifest, {"0001": "sends", "0002": "sends"})
    assert state.done == 20
    assert sorted((manifest.folder / "pacs").read_text().split()) == ["0001", "0002"]
    assert all(row[0] for row in _rows(manifest, "image")), "sending keeps what was noted of the files"


def test_a_full_disk_stops_the_run_without_losing_items(manifest: Manifest) -> None:
    state, stopped = _run(manifest, {"0004": "full"})
    assert "disk is full" in stopped and state.failed == 0
    assert {row[0] for row in _rows(manifest, "state")} == {"done", "pending"}
    assert _run(manifest)[0].done == 20
    assert {row[0] for row in _rows(manifest, "tries + interruptions")} == {0}


def test_a_pacs_that_is_away_for_an_hour_costs_no_try(manifest: Manifest) -> None:
    clock, asked = Clock(), []

    def sleep(seconds: float) -> None:
        asked.append(clock.now)
        clock.sleep(seconds)
        if clock.now > 3600:
            (manifest.folder / "pacs is back").touch()

    every = {f"{n:04d}": "away" for n in range(20)}
    state, stopped = _run(manifest, every, clock=clock, sleep=sleep)
    assert (state.done, state.failed, stopped) == (20, 0, "")
    assert 3600 < clock.now < 3600 + 2 * 300
    assert {row[0] for row in _rows(manifest, "tries")} == {0}


def test_patience_with_a_pacs_ends(manifest: Manifest) -> None:
    clock = Clock()
    every = {f"{n:04d}": "away" for n in range(20)}
    state, stopped = _run(manifest, every, clock=clock, sleep=clock.sleep, limits=Limits(patience=1800))
    assert state.done == 0 and "away for" in stopped
    assert 1800 <= clock.now < 1800 + 2 * 300
    assert {row[0] for row in _rows(manifest, "state")} == {"pending"}


def test_a_clock_that_jumps_changes_nothing(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    jumps = itertools.cycle((0.0, -1e7, 1e7))
    monkeypatch.setattr(time, "time", lambda: 1.8e9 + next(jumps))
    monkeypatch.setattr(time, "time_ns", lambda: int(1e9 * time.time()))
    told: list[RunState] = []
    state, stopped = _run(manifest, {"0003": "unreadable", "0005": "sends"}, tell=told.append)
    assert (state.done, state.failed, stopped) == (19, 1, "")
    assert all(one.rate >= 0 and not one.seconds_left < 0 for one in told)
    assert all(0 <= row[0] < 60 for row in _rows(manifest, "seconds"))
    assert 0 <= collect(manifest.folder).seconds < 60


class _Watched(ThreadPool):
    """Notes the most bytes that were under way."""

    def __init__(self, folder: Path) -> None:
        super().__init__(StandIns(folder))
        self.sizes: dict[int, int] = {}
        self.most = 0

    def submit(self, task: Task) -> None:
        self.sizes[task.item] = task.size
        self.most = max(self.most, sum(self.sizes.values()))
        super().submit(task)

    def wait(self, seconds: float) -> list[Outcome]:
        found = super().wait(seconds)
        for outcome in found:
            del self.sizes[outcome.item]
        return found


@pytest.mark.parametrize(("limit", "most"), [(25, 20), (1000, 40), (5, 10)])
def test_memory_under_way_is_bounded(manifest: Manifest, limit: int, most: int) -> None:
    pool = _Watched(manifest.folder)
    assert Scheduler(manifest, pool, limits=Limits(limit)).run().done == 20
    assert pool.most <= most
    pool.close()


def test_nothing_begins_while_a_server_answers(manifest: Manifest, tmp_path: Path) -> None:
    registry = tmp_path / "models"
    begun: list[int] = []

    class Counted(Courtesy):
        asked = 0

        def busy(self) -> bool:
            self.asked += 1
            begun.append(sum(row[0] != "pending" for row in _rows(manifest, "state")))
            return self.asked <= 5

    assert _run(manifest, courtesy=Counted())[0].done == 20
    assert begun[:5] == [0] * 5 and begun[-1] > 0
    assert not ServerCourtesy(registry).busy(), "there never was a server"
    with answering(registry):
        assert ServerCourtesy(registry).busy() and seconds_since_answer(registry) == 0
    assert ServerCourtesy(registry).busy(), "its user may ask again"
    os.utime(registry / SIGN, (time.time() - 60,) * 2)
    assert not ServerCourtesy(registry).busy()
    os.utime(registry / SIGN, (time.time() + 1e6,) * 2)  # the clock was set back
    assert not ServerCourtesy(registry).busy()


def test_a_manifest_belongs_to_one_run(manifest: Manifest) -> None:
    with pytest.raises(ValueError, match="Another run is using"):
        Manifest(manifest.folder)
    assert collect(manifest.folder).states == {"pending": 20}, "others may look"


def test_shards_are_disjoint_and_gaps_are_told(tmp_path: Path) -> None:
    everything, shards = items(300), [Shard(n, 4) for n in range(4)]
    parts = [[item for item in everything if shard.holds(item.key)] for shard in shards]
    assert sorted(item.key for part in parts for item in part) == [item.key for item in everything]
    assert all(len(part) > 40 for part in parts)
    for shard, part in list(zip(shards, parts, strict=True))[:3:2]:
        manifest = Manifest(tmp_path, shard)
        manifest.plan({"model": "m", "version": "v", "source": "s"}, part)
        assert _run(manifest)[0].done == len(part)
        manifest.close()
    report = collect(tmp_path)
    assert report.missing == ("1/4", "3/4") and not report.is_complete
    assert report.states == {"done": len(parts[0]) + len(parts[2])}


@pytest.mark.parametrize("text", ["4/4", "1", "-1/4", "a/b", "0/0", "1/2/3"])
def test_a_shard_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="Give i/n"):
        Shard.parse(text)


def test_items_that_end_the_process_again_and_again_fail(manifest: Manifest) -> None:
    task = manifest.next_tasks(0, 1)[0]
    for n in range(10):
        with manifest.write():
            manifest.begin(task)
        assert manifest.recover() == (n < 9)
    assert manifest.counts() == {"pending": 19, "failed": 1}


def test_plans_keep_what_is_known(manifest: Manifest) -> None:
    _run(manifest)
    assert manifest.plan({"model": "m", "version": "v", "source": "s"}, items(25)) == 5
    assert manifest.counts() == {"done": 20, "pending": 5}


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    (tmp_path / "manifest.sqlite3").write_bytes(b"no database" * 1000)
    with pytest.raises(ValueError, match="is damaged"):
        Manifest(tmp_path)
    with pytest.raises(FileNotFoundError, match="no manifest"):
        collect(tmp_path / "elsewhere")


def test_errors_are_sorted() -> None:
    task = Task(1, "a", "a", {}, 1)
    errors = (ValueError("x"), FileNotFoundError("x"), MemoryError())
    endings = [outcome_of(task, error, 0.0).ending for error in errors]
    assert endings == ["failed", "failed", "crashed"]
