"""Label maps in memory: what they hold, their history, and who keeps them."""

from __future__ import annotations

import base64
import threading
import zlib

import numpy as np
import pytest
from segmed.imaging.labels.segments import Segments, StoredSegment
from segmed.server.workspace.patches import Patch, inflate
from segmed.server.workspace.workspace import Workspace
from segmed.server.workspace.workspaces import Workspaces

SHAPE = (24, 18, 6)
H, W = 18, 24


def _shown(patches: list[Patch], before: np.ndarray) -> np.ndarray:
    """What a client shows that puts rectangles over what it had, (I, J, K)."""
    out = before.copy()
    for patch in patches:
        told = patch.to_json()
        (i0, i1), (j0, j1) = told["i"], told["j"]
        values = np.frombuffer(zlib.decompress(base64.b64decode(told["data"])), np.uint8).reshape(
            j1 - j0, i1 - i0
        )
        out[i0:i1, j0:j1, told["k"]] = values.T
    return out


def _random_slices(rng: np.random.Generator) -> dict[int, np.ndarray]:
    slices = {}
    for k in rng.choice(SHAPE[2], rng.integers(1, 4), replace=False):
        part = np.zeros((H, W), np.uint8)
        y, x = rng.integers(0, H), rng.integers(0, W)
        part[y : y + rng.integers(1, 9), x : x + rng.integers(1, 9)] = rng.integers(0, 4)
        slices[int(k)] = part
    return slices


def test_a_change_is_the_smallest_rectangle_that_differs() -> None:
    work = Workspace(SHAPE)
    part = np.zeros((H, W), np.uint8)
    part[3:7, 10:20] = 2
    (patch,) = work.change({4: part})
    assert (patch.k, patch.i, patch.j) == (4, (10, 20), (3, 7))
    part[5, 12] = 0
    (patch,) = work.change({4: part, 2: np.zeros((H, W), np.uint8)})
    assert (patch.k, patch.i, patch.j, patch.values().tolist()) == (4, (12, 13), (5, 6), [[0]])
    assert work.change({4: part}) == []
    assert work.volume()[10:20, 3:7, 4].sum() == 2 * 39
    assert work.volume().sum() == 2 * 39


@pytest.mark.parametrize("seed", range(8))
def test_laws_of_the_history(seed: int) -> None:
    """Clients that only see changes have what the server has, and undo and redo walk along the same
    states."""
    rng = np.random.default_rng(seed)
    work = Workspace(SHAPE, ["a", "b", "c"])
    shown, states, at = work.volume(), [work.volume()], 0
    for _ in range(60):
        what = rng.choice(["change", "undo", "redo"], p=[0.5, 0.3, 0.2])
        if what == "change":
            patches = work.change(_random_slices(rng))
            if patches:
                states, at = [*states[: at + 1], work.volume()], at + 1
        elif what == "undo":
            patches, at = work.undo(), max(at - 1, 0)
        else:
            patches, at = work.redo(), min(at + 1, len(states) - 1)
        shown = _shown(patches, shown)
        assert (work.volume() == states[at]).all()
        assert (shown == work.volume()).all()
        assert work.can_undo == (at > 0)
        assert work.can_redo == (at < len(states) - 1)
        assert (_shown(work.everything(), np.zeros(SHAPE, np.uint8)) == work.volume()).all()
        assert work.filled() == np.flatnonzero(work.volume().any(axis=(0, 1))).tolist()
    while work.can_undo:
        work.undo()
    assert not work.volume().any()
    assert work.undo() == []
    while work.can_redo:
        work.redo()
    assert (work.volume() == states[-1]).all()
    assert work.redo() == []


def test_the_history_is_bounded_and_keeps_the_newest_steps() -> None:
    work = Workspace(SHAPE, history_bytes=4000)
    rng = np.random.default_rng(0)
    states = []
    for _ in range(100):
        work.change({0: rng.integers(0, 4, (H, W)).astype(np.uint8)})
        states.append(work.volume())
    steps = 0
    while work.can_undo:
        work.undo()
        steps += 1
        assert (work.volume() == states[-1 - steps]).all()
    assert 1 <= steps < 20
    assert work.nbytes < 10_000 + 2 * 4000 + SHAPE[2] * H * W


def test_labels_get_the_next_free_value() -> None:
    work = Workspace(SHAPE, ["liver", "spleen"])
    assert work.value_of("spleen") == 2
    assert work.value_of("Läsion 腫瘍", keep=False) == 3
    assert "Läsion 腫瘍" not in work.labels
    assert work.value_of(" Läsion 腫瘍 ") == 3
    assert work.value_of("La\u0308sion 腫瘍") == 3  # the same letters, written otherwise
    assert list(work.labels) == ["liver", "spleen", "Läsion 腫瘍"]
    for name in ("", "  ", "a\nb", "x" * 65):
        with pytest.raises(ValueError, match="name"):
            work.value_of(name)
    for n in range(252):
        work.value_of(f"label {n}")
    with pytest.raises(ValueError, match="255"):
        work.value_of("one more")


def test_values_are_those_of_the_labels_whichever_are_in_use() -> None:
    work = Workspace(SHAPE, ["a", "b", "c"])
    part = np.zeros((H, W), np.uint8)
    part[0, :5], part[1, :5] = 3, work.value_of("ü")
    work.change({1: part})
    found = work.segments()
    assert [(s.name, s.value) for s in found.segments] == [("c", 3), ("ü", 4)]
    labels = found.flat()
    assert labels.shape == SHAPE
    assert labels[:5, 0, 1].tolist() == [3] * 5
    assert labels[:5, 1, 1].tolist() == [4] * 5
    assert labels.sum() == 35
    assert Workspace(SHAPE, ["a"]).segments().segments == ()


def test_files_with_too_many_labels_are_told_and_change_nothing() -> None:
    work = Workspace((400, 1, 1), ["liver"])
    values = np.arange(400, dtype=np.uint16).reshape(400, 1, 1)
    with pytest.raises(ValueError, match="holds 300 labels; 255 are the most"):
        work.load(np.where(values > 300, 0, values), {})
    assert work.labels == {"liver": 1} and not work.filled()
    bones = tuple(StoredSegment(f"bone {n}", n, layer_value=n) for n in range(1, 256))
    work.open(Segments((np.where(values > 255, 0, values).astype(np.uint8),), bones))
    assert work.labels["bone 1"] == 1 and len(work.labels) == 255


def test_a_loaded_label_is_the_start_and_is_named() -> None:
    labels = np.zeros(SHAPE, np.int32)
    labels[1:4, 2:5, 3], labels[7, 7, 5] = 7, 900
    work = Workspace(SHAPE, ["spleen", "liver"])
    work.load(labels, {7: "liver"})
    assert work.labels == {"spleen": 1, "liver": 2, "label 900": 3}
    assert not work.can_undo and not work.unsaved
    assert (work.volume() == np.where(labels == 7, 2, np.where(labels == 900, 3, 0))).all()
    work.change({3: np.zeros((H, W), np.uint8)})
    assert work.unsaved
    work.undo()
    assert (work.volume()[1:4, 2:5, 3] == 2).all()


def test_patches_of_clients_are_checked() -> None:
    good = base64.b64encode(zlib.compress(bytes([1] * 6))).decode()
    patch = Patch.parse(2, [3, 6], [4, 6], good, SHAPE)
    assert patch.values().tolist() == [[1, 1, 1], [1, 1, 1]]
    bomb = base64.b64encode(zlib.compress(bytes(10**7))).decode()
    for k, i, j, data, words in (
        (6, [3, 6], [4, 6], good, "slice 6"),
        (-1, [3, 6], [4, 6], good, "slice -1"),
        (2, [3, 25], [4, 6], good, "range i"),
        (2, [6, 3], [4, 6], good, "range i"),
        (2, [3, 6], [-1, 6], good, "range j"),
        (2, [3], [4, 6], good, "range i"),
        (2, [3, 6], [4, 6], "no base64!", "base64"),
        (2, [3, 6], [4, 6], base64.b64encode(b"abc").decode(), "not deflated"),
        (2, [3, 6], [4, 7], good, "less than the 9 bytes"),
        (2, [3, 6], [4, 5], good, "more than the 3 bytes"),
        (2, [3, 6], [4, 6], bomb, "more"),
    ):
        with pytest.raises(ValueError, match=words):
            Patch.parse(k, i, j, data, SHAPE)
    with pytest.raises(ValueError, match="less"):
        inflate(zlib.compress(bytes(100))[:-6], 100)


# --- all workspaces ---


def _open(all_of_them: Workspaces, user: str, fill: bool = False) -> list[str]:
    with all_of_them.use((user, "ct"), lambda: Workspace(SHAPE)) as (work, notes):
        if fill:
            work.change({0: np.ones((H, W), np.uint8)})
        return notes


def test_the_longest_unused_work_goes_first_and_its_user_is_told() -> None:
    kept = Workspaces(max_count=2)
    _open(kept, "a", fill=True)
    _open(kept, "b")
    _open(kept, "a")
    _open(kept, "c")  # drops b, which had nothing
    assert len(kept) == 2
    with kept.use(("a", "ct"), lambda: Workspace(SHAPE)) as (work, notes):
        assert work.volume().any() and notes == []
    _open(kept, "d")
    _open(kept, "e")  # drops a
    assert _open(kept, "b") == []
    told = _open(kept, "a")
    assert len(told) == 1 and "unsaved" in told[0].lower()
    assert _open(kept, "a") == []


def test_workspaces_are_bounded_in_bytes() -> None:
    kept = Workspaces(max_bytes=35_000)
    for n in range(6):
        _open(kept, str(n), fill=True)
    assert len(kept) == 3


def test_users_do_not_wait_for_each_other_and_work_in_use_stays() -> None:
    kept = Workspaces(max_count=1)
    inside, leave = threading.Event(), threading.Event()
    seen: list[bool] = []

    def long_inference() -> None:
        with kept.use(("slow", "ct"), lambda: Workspace(SHAPE)) as (work, _):
            inside.set()
            leave.wait(30)
            work.change({0: np.ones((H, W), np.uint8)})

    thread = threading.Thread(target=long_inference)
    thread.start()
    assert inside.wait(30)
    _open(kept, "quick", fill=True)  # would hang if it had to wait

    def same_user() -> None:
        with kept.use(("slow", "ct"), lambda: Workspace(SHAPE)) as (work, _):
            seen.append(bool(work.volume().any()))

    second = threading.Thread(target=same_user)
    second.start()
    leave.set()
    thread.join(30)
    second.join(30)
    assert seen == [True]


def test_work_that_cannot_be_opened_leaves_nothing() -> None:
    kept = Workspaces()

    def broken() -> Workspace:
        raise ValueError("unreadable")

    with pytest.raises(ValueError, match="unreadable"), kept.use(("a", "ct"), broken):
        pass
    assert len(kept) == 0
    assert _open(kept, "a") == []
