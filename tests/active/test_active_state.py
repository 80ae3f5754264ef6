"""Each image is reserved for one user, over processes, restarts and clocks that are set."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
from fake_clock import FakeClock, filled, proposed
from segmed.active.store.clock import Reading, passed
from segmed.active.store.database import Database
from segmed.active.store.labels import LabelLog
from segmed.active.store.state import ActiveState


def test_two_users_never_have_one_image(tmp_path: Path) -> None:
    state = filled(tmp_path, 5)
    assert proposed(state, "ann", 2) == ["i0", "i1"]
    assert proposed(state, "bob", 2) == ["i2", "i3"]
    assert proposed(state, "cid", 5) == ["i4"]
    assert proposed(state, "dan") == []
    assert proposed(state, "ann", 2) == ["i0", "i1"]  # asked again, answered again
    again = state.propose("random", "ann")
    assert (again[0].again, again[0].strategy) == (True, "sequential")
    state.release("i2", "ann")  # not hers
    assert state.reserved()["i2"] == "bob"


def test_a_reservation_ends(tmp_path: Path) -> None:
    clock = FakeClock()
    state = filled(tmp_path, 1, clock)
    log = LabelLog(state.database, lease=100)
    assert proposed(state, "ann") == ["i0"]
    clock.sleep(99)
    assert proposed(state, "bob") == []
    log.work("i0", "ann", 1)  # work prolongs it
    clock.sleep(99)
    assert proposed(state, "bob") == []
    clock.sleep(2)
    assert proposed(state, "bob") == ["i0"]
    assert proposed(state, "ann") == []


def test_clocks_that_are_set_neither_end_nor_prolong_it(tmp_path: Path) -> None:
    clock = FakeClock()
    state = filled(tmp_path, 1, clock)
    proposed(state, "ann")
    clock.wall -= 1e8
    clock.uptime += 50
    assert proposed(state, "bob") == []
    clock.wall += 3e8
    assert proposed(state, "bob") == []
    clock.uptime += 51
    assert proposed(state, "bob") == ["i0"]


def test_a_restart_of_the_machine_with_the_clock_set_back(tmp_path: Path) -> None:
    clock = FakeClock()
    proposed(filled(tmp_path, 1, clock), "ann")
    clock.boot, clock.uptime, clock.wall = "two", 5.0, 1.0
    state = ActiveState(Database(tmp_path, clock), 100)
    assert proposed(state, "bob") == []
    clock.sleep(101)
    assert proposed(state, "bob") == ["i0"]
    assert passed(Reading("a", 50, 100), Reading("b", 1, 130)) == 30
    assert passed(Reading("a", 50, 100), Reading("b", 60, 90)) == 0
    assert passed(Reading("a", 50, 100), Reading("a", 60, 0)) == 10


def test_skipped_images_come_last_and_refused_ones_never(tmp_path: Path) -> None:
    clock = FakeClock()
    state = filled(tmp_path, 4, clock)
    for n, forever in ((1, False), (0, False), (2, True)):
        clock.sleep(1)
        state.skip(f"i{n}", "ann", forever)
    assert proposed(state, "ann", 4) == ["i3", "i1", "i0"]
    for n in (0, 1, 3):
        state.release(f"i{n}", "ann")
    assert proposed(state, "bob", 4) == ["i0", "i1", "i2", "i3"]  # another user has opinions of their own


def test_next_without_a_label_gives_another(tmp_path: Path) -> None:
    state = filled(tmp_path, 2)
    assert proposed(state, "ann") == ["i0"]
    assert proposed(state, "ann", keep=False) == ["i1"]
    assert state.reserved() == {"i1": "ann"}
    LabelLog(state.database).record("i1", "ann", "x", {})
    assert proposed(state, "ann", keep=False) == ["i0"]
    assert proposed(state, "ann", keep=False) == ["i0"]  # there is no other


def test_labelled_and_vanished_images_are_not_proposed(tmp_path: Path) -> None:
    state = filled(tmp_path, 3)
    proposed(state, "ann", 2)
    state.observe({"i1": "f", "i2": "f"}, ["i1"])
    assert state.reserved() == {}
    assert proposed(state, "bob", 3) == ["i2"]
    state.observe({}, [])
    assert proposed(state, "bob", 3) == []
    assert not state.save_scores("i1", "v", "f", {"jitter": 1.0})


@pytest.mark.parametrize("count", [0, 101])
def test_impossible_counts(tmp_path: Path, count: int) -> None:
    with pytest.raises(ValueError, match="1 to 100"):
        filled(tmp_path, 1).propose("random", "ann", count)


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


def test_when_an_image_was_first_seen(tmp_path: Path) -> None:
    clock = FakeClock()
    state = filled(tmp_path, 1, clock)
    clock.sleep(50)
    state.observe({"i1": "f", "i0": "changed"}, ["i0"])
    assert state.arrived() == {"i0": 5e8, "i1": 5e8 + 50}
