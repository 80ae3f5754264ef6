"""Who gets which image, over users, processes, crashes and clocks that are set."""

from __future__ import annotations

import errno
import multiprocessing
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from segmed.active.store.clock import Reading, passed
from segmed.active.store.database import Database
from segmed.active.store.labels import Effort, LabelLog
from segmed.active.store.state import ActiveState


class FakeClock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.boot, self.uptime, self.wall = "one", 1000.0, 5e8

    def __call__(self) -> Reading:
        return Reading(self.boot, self.uptime, self.wall)

    def sleep(self, seconds: float) -> None:
        self.uptime += seconds
        self.wall += seconds


def _filled(folder: Path, images: int, clock: FakeClock | None = None, lease: float = 100.0) -> ActiveState:
    state = ActiveState(Database(folder, clock or FakeClock()), lease)
    state.observe({f"i{n}": "f" for n in range(images)}, [])
    return state


def _names(
    state: ActiveState, user: str, count: int = 1, strategy: str = "sequential", keep: bool = True
) -> list[str]:
    return [p.image for p in state.propose(strategy, user, count, keep=keep)]


def test_two_users_never_have_one_image(tmp_path: Path) -> None:
    state = _filled(tmp_path, 5)
    assert _names(state, "ann", 2) == ["i0", "i1"]
    assert _names(state, "bob", 2) == ["i2", "i3"]
    assert _names(state, "cid", 5) == ["i4"]
    assert _names(state, "dan") == []
    assert _names(state, "ann", 2) == ["i0", "i1"]  # asked again, answered again
    again = state.propose("random", "ann")
    assert (again[0].again, again[0].strategy) == (True, "sequential")
    state.release("i2", "ann")  # not hers
    assert state.reserved()["i2"] == "bob"


def test_a_reservation_ends(tmp_path: Path) -> None:
    clock = FakeClock()
    state = _filled(tmp_path, 1, clock)
    log = LabelLog(state.database, lease=100)
    assert _names(state, "ann") == ["i0"]
    clock.sleep(99)
    assert _names(state, "bob") == []
    log.work("i0", "ann", 1)  # work prolongs it
    clock.sleep(99)
    assert _names(state, "bob") == []
    clock.sleep(2)
    assert _names(state, "bob") == ["i0"]
    assert _names(state, "ann") == []


def test_clocks_that_are_set_neither_end_nor_prolong_it(tmp_path: Path) -> None:
    clock = FakeClock()
    state = _filled(tmp_path, 1, clock)
    _names(state, "ann")
    clock.wall -= 1e8
    clock.uptime += 50
    assert _names(state, "bob") == []
    clock.wall += 3e8
    assert _names(state, "bob") == []
    clock.uptime += 51
    assert _names(state, "bob") == ["i0"]


def test_a_restart_of_the_machine_with_the_clock_set_back(tmp_path: Path) -> None:
    clock = FakeClock()
    _names(_filled(tmp_path, 1, clock), "ann")
    clock.boot, clock.uptime, clock.wall = "two", 5.0, 1.0
    state = ActiveState(Database(tmp_path, clock), 100)
    assert _names(state, "bob") == []
    clock.sleep(101)
    assert _names(state, "bob") == ["i0"]
    assert passed(Reading("a", 50, 100), Reading("b", 1, 130)) == 30
    assert passed(Reading("a", 50, 100), Reading("b", 60, 90)) == 0
    assert passed(Reading("a", 50, 100), Reading("a", 60, 0)) == 10


def test_skipped_images_come_last_and_refused_ones_never(tmp_path: Path) -> None:
    clock = FakeClock()
    state = _filled(tmp_path, 4, clock)
    for n, forever in ((1, False), (0, False), (2, True)):
        clock.sleep(1)
        state.skip(f"i{n}", "ann", forever)
    assert _names(state, "ann", 4) == ["i3", "i1", "i0"]
    for n in (0, 1, 3):
        state.release(f"i{n}", "ann")
    assert _names(state, "bob", 4) == ["i0", "i1", "i2", "i3"]  # another user has opinions of their own


def test_next_without_a_label_gives_another(tmp_path: Path) -> None:
    state = _filled(tmp_path, 2)
    assert _names(state, "ann") == ["i0"]
    assert _names(state, "ann", keep=False) == ["i1"]
    assert state.reserved() == {"i1": "ann"}
    LabelLog(state.database).record("i1", "ann", "x", {})
    assert _names(state, "ann", keep=False) == ["i0"]
    assert _names(state, "ann", keep=False) == ["i0"]  # there is no other


def test_labelled_and_vanished_images_are_not_proposed(tmp_path: Path) -> None:
    state = _filled(tmp_path, 3)
    _names(state, "ann", 2)
    state.observe({"i1": "f", "i2": "f"}, ["i1"])
    assert state.reserved() == {}
    assert _names(state, "bob", 3) == ["i2"]
    state.observe({}, [])
    assert _names(state, "bob", 3) == []
    assert not state.save_scores("i1", "v", "f", {"jitter": 1.0})


@pytest.mark.parametrize("count", [0, 101])
def test_impossible_counts(tmp_path: Path, count: int) -> None:
    with pytest.raises(ValueError, match="1 to 100"):
        _filled(tmp_path, 1).propose("random", "ann", count)


def test_scores_steer_and_changed_files_are_stale(tmp_path: Path) -> None:
    state = _filled(tmp_path, 3)
    assert state.stale("v1") == ["i0", "i1", "i2"]
    assert state.propose("jitter", "zoe")[0].note.startswith("No image has a score")
    state.release(next(iter(state.reserved())), "zoe")
    for n, value in enumerate((0.1, 0.9, float("nan"))):
        assert state.save_scores(f"i{n}", "v1", "f", {"jitter": value}, np.full(4, n, np.float32))
    assert state.stale("v1") == []
    found = state.propose("jitter", "ann", 3, "v1")
    assert [p.image for p in found] == ["i1", "i0", "i2"]
    assert found[0].note == ""
    state.save_scores(
        "i2", "v1", "f", {"jitter": 0.4, "tta": 0.2}, np.full(4, 5, np.float32)
    )  # one alone is new
    _, scores, embeddings = state.table("v1")
    assert scores["jitter"].tolist() == pytest.approx([0.1, 0.9, 0.4])
    assert np.array_equal(scores["tta"], [np.nan, np.nan, 0.2], equal_nan=True)
    assert embeddings is not None
    assert embeddings[:, 0].tolist() == [0, 1, 5]
    fresh = ActiveState(state.database).table("v1")  # the same when read at once
    assert np.array_equal(fresh[1]["tta"], scores["tta"], equal_nan=True)
    assert np.array_equal(fresh[2], embeddings)  # type: ignore[arg-type]
    state.save_scores("i2", "v1", "f", {})
    state.observe({"i0": "f", "i1": "other", "i2": "f"}, ["i0"])
    assert state.stale("v1") == ["i1"]
    images, scores, embeddings = state.table("v1")
    assert images == ("i0", "i1", "i2")
    assert np.array_equal(scores["jitter"], [0.1, np.nan, np.nan], equal_nan=True)
    assert embeddings is not None
    assert np.array_equal(embeddings[:, 0], [0, np.nan, np.nan], equal_nan=True)


def test_scores_of_versions_are_not_mixed(tmp_path: Path) -> None:
    state = _filled(tmp_path, 4)
    for n in range(4):
        state.save_scores(f"i{n}", "old", "f", {"tta": n / 10})
    state.save_scores("i0", "new", "f", {"tta": 1.0})
    assert state.table("new")[1]["tta"].tolist() == pytest.approx([0, 0.1, 0.2, 0.3])
    assert state.prune("new") == 0
    state.save_scores("i1", "new", "f", {"tta": 0.5})
    assert np.array_equal(state.table("new")[1]["tta"], [1, 0.5, np.nan, np.nan], equal_nan=True)
    for n in (2, 3):
        state.save_scores(f"i{n}", "new", "f", {})  # cannot be looked at
    assert state.prune("new") == 4
    assert state.stale("old", 10) == [f"i{n}" for n in range(4)]


def _ask(folder: Path, user: str, out: multiprocessing.Queue[list[str]]) -> None:
    state = ActiveState(Database(folder))
    found = [p.image for _ in range(10) for p in state.propose("random", user, 2, keep=False)]
    out.put(found + list(state.reserved()))


def test_processes_do_not_share_images(tmp_path: Path) -> None:
    state = ActiveState(Database(tmp_path))
    state.observe({f"i{n}": "f" for n in range(8)}, [])
    context = multiprocessing.get_context("fork")  # the inherited connection must not be used
    out: multiprocessing.Queue[list[str]] = context.Queue()
    workers = [context.Process(target=_ask, args=(tmp_path, f"u{n}", out)) for n in range(3)]
    for worker in workers:
        worker.start()
    for _ in workers:
        out.get(timeout=60)
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    held = state.reserved()
    assert len(held) == 6
    assert sorted(held.values()) == ["u0", "u0", "u1", "u1", "u2", "u2"]


def test_what_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    database = Database(tmp_path)
    state = ActiveState(database)
    state.observe({"i0": "f"}, [])
    with pytest.raises(KeyboardInterrupt), database.write() as (sql, _, _):
        sql.execute("DELETE FROM images")
        raise KeyboardInterrupt
    assert state.stale("v") == ["i0"]
    pages = database._connection().execute("PRAGMA page_count").fetchone()[0]
    database._connection().execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(OSError, match="disk is full") as caught:
        state.save_scores("i0", "v", "f", {"x": 1.0}, np.ones(100_000, np.float32))
    assert caught.value.errno == errno.ENOSPC
    assert state.stale("v") == ["i0"]


def test_a_damaged_file_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "active.sqlite3").write_bytes(b"not a database at all" * 100)
    state = _filled(tmp_path, 1)
    assert _names(state, "ann") == ["i0"]
    assert (tmp_path / "active.damaged-1.sqlite3").read_bytes().startswith(b"not a database")


def test_a_newer_file_is_refused(tmp_path: Path) -> None:
    Database(tmp_path).close()
    sql = sqlite3.connect(tmp_path / "active.sqlite3")
    sql.execute("PRAGMA user_version = 99")
    sql.close()
    with pytest.raises(ValueError, match="newer version"):
        Database(tmp_path)


def test_scores_stay_with_their_images(tmp_path: Path) -> None:
    state = _filled(tmp_path, 6)
    for n in range(6):
        state.save_scores(f"i{n}", "v1", "f", {"tta": n / 10}, np.full(3, float(n)))
    state.table("v1")
    marks = {"new": "f", **{f"i{n}": "f" for n in (5, 1, 3, 4)}}
    for change in ({}, {"i3": "changed"}, {"i3": "f"}, {"i0": "f"}):
        marks |= change
        state.observe(marks, [])
        if change.get("i3") == "f":
            state.save_scores("i3", "v1", "f", {"tta": 0.9})
            state.save_scores("new", "v1", "f", {"bald": 0.5}, np.ones(3))
        known, fresh = state.table("v1"), ActiveState(state.database).table("v1")
        assert known[0] == fresh[0] == tuple(marks)
        assert known[1].keys() == fresh[1].keys()
        for name in known[1]:
            assert np.array_equal(known[1][name], fresh[1][name], equal_nan=True), (change, name)
        assert known[2] is not None
        assert fresh[2] is not None
        assert np.array_equal(known[2], fresh[2], equal_nan=True)
    assert dict(zip(known[0], known[1]["tta"], strict=True))["i4"] == pytest.approx(0.4)


def test_a_file_of_the_first_format_is_brought_up_to_date(tmp_path: Path) -> None:
    state = _filled(tmp_path, 2)
    LabelLog(state.database).work("i0", "ann", 1)
    state.database.close()
    sql = sqlite3.connect(tmp_path / "active.sqlite3")
    sql.executescript("ALTER TABLE cases DROP COLUMN model; ALTER TABLE images DROP COLUMN arrived;")
    sql.execute("DROP TABLE review")
    sql.execute("PRAGMA user_version = 1")
    sql.close()
    again = Database(tmp_path)
    assert [(c.prompts, c.model) for c in LabelLog(again).cases()] == [(1, "")]
    assert ActiveState(again).arrived() == {"i0": 0, "i1": 0}


def test_when_an_image_was_first_seen(tmp_path: Path) -> None:
    clock = FakeClock()
    state = _filled(tmp_path, 1, clock)
    clock.sleep(50)
    state.observe({"i1": "f", "i0": "changed"}, ["i0"])
    assert state.arrived() == {"i0": 5e8, "i1": 5e8 + 50}


def test_what_a_viewer_counts_goes_before_what_was_counted_here(tmp_path: Path) -> None:
    log = LabelLog(_filled(tmp_path, 3).database)
    log.work("i0", "ann", 1, "segmed")
    log.record("i0", "ann", "a", {"x": 1}, None, Effort(7, 31.5, "medsam"))
    log.work("i1", "ann", 2, "segmed")
    log.work("i1", "ann", 1, "classical")
    log.record("i1", "ann", "b", {"x": 1}, None, Effort(seconds=12.0))
    log.record("i2", "ann", "c", {"x": 1})
    told = [(c.prompts, c.model) for c in log.cases()]
    assert told == [(7, "medsam"), (3, "classical"), (0, "")]
    assert [c.seconds for c in log.cases()][:2] == [31.5, 12.0]


def test_work_is_counted_without_pauses(tmp_path: Path) -> None:
    clock = FakeClock()
    state = _filled(tmp_path, 2, clock, lease=1e6)
    log = LabelLog(state.database, pause=60)
    _names(state, "ann")
    log.work("i0", "ann")
    for seconds in (10, 20, 4000):
        clock.sleep(seconds)
        log.work("i0", "ann", 1)
    clock.sleep(5)
    record = log.record(
        "i0", "ann", "abc", {"liver": 10, "spleen": 0}, {"liver": 0.8, "spleen": float("nan")}
    )
    assert record is not None
    assert (dict(record.sizes), dict(record.agreement), record.state) == (
        {"liver": 10},
        {"liver": 0.8},
        "kept",
    )
    (case,) = log.cases()
    assert (case.seconds, case.prompts, case.label, case.strategy) == (
        10 + 20 + 60 + 5,
        3,
        record.id,
        "sequential",
    )
    assert state.reserved() == {}
    assert log.record("i0", "ann", "abc", {"liver": 10}) is None


def test_contradicting_and_deleted_labels(tmp_path: Path) -> None:
    state = _filled(tmp_path, 2)
    log = LabelLog(state.database)
    first, second = log.record("i0", "ann", "a", {"x": 1}), log.record("i0", "bob", "b", {"x": 9})
    log.record("i1", "ann", "c", {})
    assert first and second
    assert [r.checksum for r in log.usable()] == ["b", "c"]
    assert {image: [r.user for r in records] for image, records in log.contested().items()} == {
        "i0": ["ann", "bob"]
    }
    assert log.delete("i0") == 2
    assert [r.checksum for r in log.usable()] == ["c"]
    assert log.contested() == {}
    assert _names(state, "ann") == ["i0"]  # to be labelled again
    with pytest.raises(ValueError, match="deleted"):
        log.review(first.id, True, "eve")


def test_noise_is_held_until_somebody_decides(tmp_path: Path) -> None:
    log = LabelLog(_filled(tmp_path, 0).database)
    for n in range(6):
        record = log.record(f"i{n}", "ann", f"{n}", {"x": 5})
        assert record
        assert log.examine(record.id, {"v1": 0.85 + n / 100, "v2": 0.2}) == ""
    noise = log.record("i9", "max", "n", {"x": 5})
    assert noise
    reason = log.examine(noise.id, {"v1": 0.02, "v2": 0.01})
    assert "v1 0.02" in reason
    assert "v2" not in reason  # a version that never agrees does not count
    assert [r.image for r in log.labels("held")] == ["i9"]
    assert "i9" not in {r.image for r in log.usable()}
    assert log.review(noise.id, True, "eve").state == "kept"
    assert log.examine(noise.id, {"v1": 0.02}) == ""  # it was decided
    assert "i9" in {r.image for r in log.usable()}
    assert log.review(noise.id, False, "eve").reviewer == "eve"
    assert "i9" not in {r.image for r in log.usable()}
