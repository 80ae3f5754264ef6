"""Labels are logged with the work on them, and noise among them is held until somebody decides."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_clock import FakeClock, filled, proposed
from segmed.active.store.labels import Effort, LabelLog


def test_what_a_viewer_counts_goes_before_what_was_counted_here(tmp_path: Path) -> None:
    log = LabelLog(filled(tmp_path, 3).database)
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
    state = filled(tmp_path, 2, clock, lease=1e6)
    log = LabelLog(state.database, pause=60)
    proposed(state, "ann")
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
    state = filled(tmp_path, 2)
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
    assert proposed(state, "ann") == ["i0"]  # to be labelled again
    with pytest.raises(ValueError, match="deleted"):
        log.review(first.id, True, "eve")


def test_noise_is_held_until_somebody_decides(tmp_path: Path) -> None:
    log = LabelLog(filled(tmp_path, 0).database)
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
