"""Scores are kept per image and model version, through crashes, full disks and changes of the file format."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from fake_clock import filled, proposed
from segmed.active.store.database import Database
from segmed.active.store.labels import LabelLog
from segmed.active.store.state import ActiveState


def test_scores_steer_and_changed_files_are_stale(tmp_path: Path) -> None:
    state = filled(tmp_path, 3)
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
    state = filled(tmp_path, 4)
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
    state = filled(tmp_path, 1)
    assert proposed(state, "ann") == ["i0"]
    assert (tmp_path / "active.damaged-1.sqlite3").read_bytes().startswith(b"not a database")


def test_a_newer_file_is_refused(tmp_path: Path) -> None:
    Database(tmp_path).close()
    sql = sqlite3.connect(tmp_path / "active.sqlite3")
    sql.execute("PRAGMA user_version = 99")
    sql.close()
    with pytest.raises(ValueError, match="newer version"):
        Database(tmp_path)


def test_scores_stay_with_their_images(tmp_path: Path) -> None:
    state = filled(tmp_path, 6)
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
    state = filled(tmp_path, 2)
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
