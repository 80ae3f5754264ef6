"""Unsaved work on disk."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from segmed.server.workspace.journal import Journal, image_identity
from segmed.server.workspace.workspace import Workspace
from segmed.server.workspace.workspaces import Workspaces

SHAPE = (20, 16, 6)
COLUMNS, ROWS, _ = SHAPE


def _filled(value: int = 1, k: int = 2, seed: int | None = None) -> dict[int, np.ndarray]:
    if seed is not None:
        return {k: np.random.default_rng(seed).integers(0, 2, (ROWS, COLUMNS)).astype(np.uint8)}
    return {k: np.full((ROWS, COLUMNS), value, np.uint8)}


def _use(
    spaces: Workspaces, user: str = "a", slices: dict[int, np.ndarray] | None = None, of: str = "x"
) -> tuple[Workspace, list[str]]:
    with spaces.use(("login", user, "ct"), lambda: Workspace(SHAPE, ["liver"]), lambda: of) as (work, notes):
        if slices:
            work.value_of("Läsion 腫瘍")
            work.change(slices)
        return work, notes


def test_unsaved_work_comes_back_in_another_run(tmp_path: Path) -> None:
    first = Workspaces(journal=Journal(tmp_path / "work"))
    work, notes = _use(first, slices=_filled(2))
    work.seconds, work.model = 12.5, "medsam"
    _use(first, slices=_filled(1, k=5))
    assert notes == []
    second = Workspaces(journal=Journal(tmp_path / "work"))
    assert second.boot != first.boot
    assert second.unsaved(("login", "a")) == {"ct"}
    assert second.unsaved(("login", "b")) == set()
    back, notes = _use(second)
    assert "brought back" in notes[0]
    assert (back.volume() == work.volume()).all() and back.volume().any()
    assert back.labels == {"liver": 1, "Läsion 腫瘍": 2}
    assert (back.revision, back.unsaved, back.model) == (2, True, "medsam")
    assert not back.can_undo and back.opened is None
    assert _use(second)[1] == []


def test_only_what_is_unsaved_lies_on_disk_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    spaces = Workspaces(journal=Journal(tmp_path / "work"))
    _use(spaces)
    assert not (tmp_path / "work").exists()
    _use(spaces, slices=_filled())
    (file,) = (tmp_path / "work").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "work").stat().st_mode & 0o777 == 0o700
    before = file.stat().st_mtime_ns
    _use(spaces)  # nothing has changed, nothing is written
    assert file.stat().st_mtime_ns == before
    with spaces.use(("login", "a", "ct"), lambda: Workspace(SHAPE)) as (work, _):
        work.unsaved = False
    assert list((tmp_path / "work").iterdir()) == []
    assert spaces.unsaved(("login", "a")) == set()


def test_work_on_another_image_of_the_name_does_not_come_back_but_stays(tmp_path: Path) -> None:
    _use(Workspaces(journal=Journal(tmp_path)), slices=_filled(), of="Ms A's image")
    work, notes = _use(Workspaces(journal=Journal(tmp_path)), of="Mr B's image")
    assert not work.volume().any() and "another image" in notes[0]
    work, notes = _use(Workspaces(journal=Journal(tmp_path)), of="Ms A's image")
    assert work.volume().any() and "brought back" in notes[0]


def test_an_image_that_is_replaced_takes_its_work_along(tmp_path: Path) -> None:
    spaces = Workspaces(journal=Journal(tmp_path))
    _use(spaces, slices=_filled())
    spaces.forget("ct")
    assert list(tmp_path.iterdir()) == []
    work, notes = _use(spaces)
    assert notes == [] and not work.volume().any()
    assert work.revision > 1  # nobody takes it for the work that was there


@pytest.mark.parametrize("damage", ["cut", "turned", "emptied", "no file of ours"])
def test_damaged_files_are_told_and_hide_nothing_else(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    spaces = Workspaces(journal=Journal(tmp_path))
    _use(spaces, "a", _filled(seed=1))
    (file,) = tmp_path.iterdir()
    _use(spaces, "b", _filled(seed=2))
    content = file.read_bytes()
    changed = {
        "cut": content[:-9],
        "turned": content[:-9] + bytes([content[-9] ^ 255]) + content[-8:],
        "emptied": b"",
        "no file of ours": b"[1, 2]\n",
    }
    file.write_bytes(changed[damage])
    with caplog.at_level(logging.WARNING):
        again = Workspaces(journal=Journal(tmp_path))
        work, _ = _use(again, "a")
    assert not work.volume().any()
    assert "unsaved work" in caplog.text.lower()
    assert _use(again, "b")[0].volume().any()


def test_a_crash_amid_writing_leaves_the_state_before(tmp_path: Path) -> None:
    spaces = Workspaces(journal=Journal(tmp_path))
    _use(spaces, slices=_filled(1))
    (file,) = tmp_path.iterdir()
    file.with_suffix(".part").write_bytes(b"half")
    back, _ = _use(Workspaces(journal=Journal(tmp_path)))
    assert back.volume().any()
    assert list(tmp_path.iterdir()) == [file]


def test_the_journal_is_bounded_and_the_oldest_goes_first(tmp_path: Path) -> None:
    bound = 1200
    spaces = Workspaces(journal=Journal(tmp_path, bound))
    for n in range(8):
        _use(spaces, str(n), _filled(seed=n))
        assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= bound
    kept = Journal(tmp_path, bound).keys()
    assert 0 < len(kept) < 8 and ("login", "7", "ct") in kept and ("login", "0", "ct") not in kept


def test_work_that_had_to_leave_the_memory_comes_back_from_disk(tmp_path: Path) -> None:
    spaces = Workspaces(max_count=1, journal=Journal(tmp_path))
    _use(spaces, "a", _filled())
    _use(spaces, "b", _filled())
    assert len(spaces) == 1
    assert spaces.unsaved(("login", "a")) == {"ct"}
    work, notes = _use(spaces, "a")
    assert work.volume().any() and "brought back" in notes[0]


def test_a_folder_that_cannot_be_written_costs_the_safety_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    spaces = Workspaces(journal=Journal(tmp_path / "file" / "work"))
    with caplog.at_level(logging.WARNING):
        _use(spaces, "a", _filled(1))
        assert _use(spaces, "a", _filled(2))[0].volume().any()
    assert caplog.text.count("memory only") == 1


def test_only_changed_slices_are_packed_anew() -> None:
    work = Workspace(SHAPE)
    work.change(_filled(1, 1) | _filled(1, 2))
    first = work.packed()
    work.change(_filled(3, 2))
    second = work.packed()
    assert second[1] is first[1] and second[2] != first[2]
    work.undo()
    work.undo()
    assert work.packed() == {}


def test_the_revision_grows_by_one_with_each_change_and_by_nothing_else() -> None:
    work = Workspace(SHAPE, ["liver"])
    assert work.settle() == work.settle() == 0
    work.value_of("spleen")
    work.change(_filled())
    assert work.settle() == 1
    work.change(_filled())  # the same again
    work.accept()  # nothing is open
    assert work.settle() == 1
    work.undo()
    assert work.settle() == 2
    work.undo()
    assert work.settle() == 2
    work.redo()
    assert work.settle() == 3


def test_an_image_is_known_by_its_content(tmp_path: Path) -> None:
    for name, content in (("a.nii", b"one"), ("b.nii", b"one"), ("c.nii", b"two")):
        (tmp_path / name).write_bytes(content)
    a, b, c = (image_identity(tmp_path / name) for name in ("a.nii", "b.nii", "c.nii"))
    assert a == b != c
    assert image_identity(tmp_path) != a
