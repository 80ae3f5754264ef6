"""Versions that never change, a pointer that moves, and what crashes, full disks and damage leave behind."""

from __future__ import annotations

import errno
import json
import logging
import math
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import segmed
import torch
from safetensors.torch import load_file, save_file
from segmed.evaluation.case_scores import CaseScore
from segmed.registry.model_version import DataFingerprint, ModelVersion, VersionRecord
from segmed.registry.version_diff import diff_versions
from segmed.registry.versions import Registry

DATA = DataFingerprint(
    ("a", "b", "c"), {"a": "1" * 64, "b": "2" * 64}, {"train": ("a",), "validation": ("b",)}
)
FACTS = {"method": "lora", "backbone": "abc", "image_size": 96, "config": {"rank": 4}}


def scores(*dice: float) -> tuple[CaseScore, ...]:
    return tuple(CaseScore(f"case{n}", "liver", d, 2.0 if d else math.inf) for n, d in enumerate(dice))


def record(*dice: float, **more: object) -> VersionRecord:
    return replace(VersionRecord(scores(*dice), DATA, {"epochs": 3, "rates": {"": 1e-4}}), **more)  # type: ignore[arg-type]


def writer(value: float) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        save_file({"a": torch.full((16,), value)}, folder / "weights.safetensors")
        (folder / "config.json").write_text(json.dumps(FACTS), encoding="utf-8")

    return write


def add(registry: Registry, value: float) -> str:
    return registry.add("lora", writer(value), record(0.5)).version


def served(registry: Registry) -> str | None:
    """What this registry and one that has seen nothing before say."""
    found, fresh = registry.served("lora"), Registry(registry.folder).served("lora")
    assert (found and found.version) == (fresh and fresh.version)
    return found.version if found else None


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "models")


def full_disk(monkeypatch: pytest.MonkeyPatch, *, folder: bool) -> None:
    """Renaming of folders, or of files, fails."""
    real = os.replace

    def replace_or_fail(source: Path, target: Path) -> None:
        if Path(source).is_dir() == folder:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", replace_or_fail)


def test_a_version_is_read_as_it_was_added(registry: Registry) -> None:
    given = record(0.5, 0.0, parent="0001-00000000")
    kept = registry.add("lora", writer(1), given)
    found = Registry(registry.folder).get("lora", kept.version)
    assert found == kept
    assert not found.served and not found.damage
    assert found.record is not None
    assert found.record.scores == given.scores and math.isinf(found.record.scores[1].hd95)
    assert (found.record.data, found.record.settings, found.record.parent) == (
        DATA,
        given.settings,
        given.parent,
    )
    assert found.record.code == segmed.__version__
    assert set(found.record.files) == {"config.json", "weights.safetensors"}
    assert found.version == f"0001-{found.record.files['weights.safetensors'][:8]}"
    assert torch.equal(load_file(found.folder / "weights.safetensors")["a"], torch.ones(16))
    json.loads((found.folder / "metrics.json").read_bytes(), parse_constant=pytest.fail)  # strict JSON
    assert registry.names() == ["lora"]
    assert registry.served("lora") is None


def test_moves_take_effect_at_once_and_roll_back_to_none(registry: Registry) -> None:
    other = Registry(registry.folder)  # a server that reads while the command line writes
    first, second, third = (add(registry, v) for v in (1, 2, 3))
    assert [v.version for v in registry.versions("lora")] == [first, second, third]
    for version in (first, second, third, second):
        registry.promote("lora", version, "because")
        assert served(other) == version
    assert [v.version for v in other.versions("lora") if v.served] == [second]
    for expected in (third, second, first, None):
        back = registry.rollback("lora")
        assert (back.version if back else None) == expected
        assert served(other) == expected
    with pytest.raises(ValueError, match="nothing to roll back"):
        registry.rollback("lora")
    registry.promote("lora", third)
    assert registry.rollback("lora") is None
    moves = registry.history("lora")
    assert [m.action for m in moves] == ["promote"] * 4 + ["rollback"] * 4 + ["promote", "rollback"]
    assert (moves[1].version, moves[1].previous, moves[1].reason) == (second, first, "because")


def test_served_reads_the_version_once(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.promote("lora", add(registry, 1))
    assert registry.served("lora") is registry.served("lora")
    monkeypatch.setattr(registry, "_read", pytest.fail)
    assert registry.served("lora") is not None


@pytest.mark.parametrize("crash", [RuntimeError, KeyboardInterrupt, OSError])
def test_a_crash_while_writing_leaves_nothing(registry: Registry, crash: type[BaseException]) -> None:
    first = add(registry, 1)
    registry.promote("lora", first)

    def write(folder: Path) -> None:
        writer(2)(folder)
        raise crash("in the middle")

    with pytest.raises(crash):
        registry.add("lora", write, record(0.9))
    assert [v.version for v in registry.versions("lora")] == [first]
    assert served(registry) == first
    assert not (registry.folder / "lora" / ".staging").exists()


def test_a_killed_writer_is_swept(registry: Registry) -> None:
    left = registry.folder / "lora" / ".staging"
    left.mkdir(parents=True)
    writer(1)(left)
    (left / "metrics.json").write_text("{", encoding="utf-8")
    assert registry.versions("lora") == [] and registry.names() == []
    add(registry, 2)
    assert not left.exists()
    assert len(registry.versions("lora")) == 1


def test_a_full_disk_keeps_the_served_version(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = add(registry, 1), add(registry, 2)
    registry.promote("lora", first)
    with monkeypatch.context() as patch:
        full_disk(patch, folder=True)
        with pytest.raises(OSError, match="No space"):
            registry.decide("lora", writer(3), record(0.9), first, scores(0.5))
    assert [v.version for v in registry.versions("lora")] == [first, second]
    with monkeypatch.context() as patch:
        full_disk(patch, folder=False)
        for action in (lambda: registry.promote("lora", second), lambda: registry.rollback("lora")):
            with pytest.raises(OSError, match="No space"):
                action()
    assert served(registry) == first
    # moves that did not happen do not count
    registry.promote("lora", second)
    back = registry.rollback("lora")
    assert back is not None and back.version == first
    assert registry.rollback("lora") is None


def test_a_line_of_history_cut_off_by_a_full_disk(registry: Registry) -> None:
    first, second, third = (add(registry, v) for v in (1, 2, 3))
    registry.promote("lora", first)
    registry.promote("lora", second)
    with (registry.folder / "lora" / "history.jsonl").open("a") as file:
        file.write('{"time": "2026')
    registry.promote("lora", third)
    assert [m.version for m in registry.history("lora")] == [first, second, third]
    for expected in (second, first):
        back = registry.rollback("lora")
        assert back is not None and back.version == expected


def _truncate_weights(version: ModelVersion) -> None:
    path = version.folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-4])


def _flip_a_bit(version: ModelVersion) -> None:
    path = version.folder / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _cut_record(version: ModelVersion) -> None:
    path = version.folder / "metrics.json"
    path.write_text(path.read_text()[:-30])


def _wrong_type(version: ModelVersion) -> None:
    path = version.folder / "metrics.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "scores": [{"case": "a"}]}))


def _impossible_split(version: ModelVersion) -> None:
    path = version.folder / "metrics.json"
    facts = json.loads(path.read_text())
    facts["data"]["split"]["train"].append("b")
    path.write_text(json.dumps(facts))


DAMAGES = {
    "weights.safetensors is cut off": _truncate_weights,
    "weights.safetensors is not the file": _flip_a_bit,
    "weights.safetensors is missing": lambda v: (v.folder / "weights.safetensors").unlink(),
    "metrics.json is missing": lambda v: (v.folder / "metrics.json").unlink(),
    "has no config.json": lambda v: (v.folder / "config.json").unlink(),
    "config.json in": lambda v: (v.folder / "config.json").write_text("[]"),
    "metrics.json is damaged at the text": _cut_record,
    "metrics.json is damaged at scores.0.label": _wrong_type,
    "both in train and in validation": _impossible_split,
}


@pytest.mark.parametrize("words", DAMAGES)
def test_a_damaged_version_is_listed_and_never_served(
    registry: Registry, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, second, third = (add(registry, v) for v in (1, 2, 3))
    for version in (first, second, third):
        registry.promote("lora", version)
    DAMAGES[words](registry.get("lora", third))
    fresh = Registry(registry.folder)
    found = fresh.get("lora", third)
    assert words in found.damage and found.record is None and not found.served
    assert words == "weights.safetensors is not the file" or fresh.versions("lora")[2].damage == found.damage
    with caplog.at_level(logging.WARNING):
        assert served(fresh) == second
    assert any(second in message and third in message for message in caplog.messages)
    with pytest.raises(ValueError, match="cannot be served"):
        fresh.promote("lora", third)
    DAMAGES[words](registry.get("lora", first))
    assert fresh.rollback("lora") is not None  # from the damaged one to the one before it
    assert fresh.rollback("lora") is None  # the first is passed over


@pytest.mark.parametrize("text", ["", "0009-00000000\n", "../../etc", "\x00\xff" * 300])
def test_a_damaged_pointer_falls_back(
    registry: Registry, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = add(registry, 1), add(registry, 2)
    registry.promote("lora", first)
    registry.promote("lora", second)
    (registry.folder / "lora" / "current").write_text(text, encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        assert served(registry) == second
    assert caplog.messages
    registry.promote("lora", first)
    assert served(registry) == first


def test_nothing_good_left_serves_nothing(registry: Registry) -> None:
    first = add(registry, 1)
    registry.promote("lora", first)
    _flip_a_bit(registry.get("lora", first))
    assert served(Registry(registry.folder)) is None


def test_a_copied_version_does_not_pass_as_another(registry: Registry) -> None:
    first = registry.get("lora", add(registry, 1))
    first.folder.rename(first.folder.with_name("0007-00000000"))
    assert "another version" in registry.get("lora", "0007-00000000").damage
    assert add(registry, 2).startswith("0008-")


def test_decide_serves_what_is_better_only(registry: Registry) -> None:
    base, good, equal = (0.4, 0.5, 0.6), (0.6, 0.7, 0.8), (0.6, 0.7, 0.8)
    first = registry.decide("lora", writer(1), record(*good), None, scores(*base))
    assert first.served and served(registry) == first.version
    assert first.record is not None and first.record.verdict is not None
    assert first.record.verdict.reason.startswith("Better than the untrained method.")
    poisoned = (0.1, 0.0, 0.2)
    for dice in (equal, poisoned, (math.nan,) * 3, ()):
        kept = registry.decide("lora", writer(2), record(*dice), first.version, scores(*good))
        assert not kept.served and not kept.damage
        assert served(registry) == first.version
        again = registry.get("lora", kept.version).record
        assert again is not None and again.verdict is not None and not again.verdict.accepted
        assert first.version in again.verdict.reason and "stays in use" in again.verdict.reason
    better = registry.decide("lora", writer(3), record(0.8, 0.9, 0.9), first.version, scores(*good))
    assert served(registry) == better.version
    assert registry.history("lora")[-1].reason == better.record.verdict.reason  # type: ignore[union-attr]
    # trained against what is not served any more
    late = registry.decide("lora", writer(4), record(0.99, 0.99, 0.99), first.version, scores(*good))
    assert not late.served and served(registry) == better.version
    assert f"{better.version} is served by now" in late.record.verdict.reason  # type: ignore[union-attr]
    back = registry.rollback("lora")
    assert back is not None and back.version == first.version


@pytest.mark.parametrize(
    "name", ["", "..", ".hidden", "a/b", "../a", "a\\b", "a\n", "ä", "a b", "-x", "a" * 65, "a\0"]
)
def test_names_never_become_paths_unchecked(registry: Registry, name: str) -> None:
    actions: list[Callable[[], object]] = [
        lambda: registry.served(name),
        lambda: registry.versions(name),
        lambda: registry.get(name, "0001-00000000"),
        lambda: registry.add(name, writer(1), record(0.5)),
        lambda: registry.promote(name, "0001-00000000"),
        lambda: registry.rollback(name),
        lambda: registry.history(name),
    ]
    for action in actions:
        with pytest.raises(ValueError, match="name of a model"):
            action()
    assert not registry.folder.exists()


def test_versions_never_become_paths_unchecked(registry: Registry) -> None:
    version = add(registry, 1)
    for wrong in ("..", f"../lora/{version}", ".staging", version + "\n", ""):
        with pytest.raises(ValueError, match="name of a version"):
            registry.get("lora", wrong)
    with pytest.raises(FileNotFoundError, match=version):
        registry.promote("lora", "0002-00000000")
    with pytest.raises(FileNotFoundError, match="no model 'lorra'"):
        registry.rollback("lorra")
    assert registry.names() == ["lora"]


def test_an_incomplete_version_is_refused(registry: Registry) -> None:
    with pytest.raises(ValueError, match=r"config\.json"):
        registry.add("lora", lambda folder: None, record(0.5))
    with pytest.raises(ValueError, match=r"weights\.safetensors is missing"):
        registry.add(
            "lora", lambda f: (f / "config.json").write_text(json.dumps(FACTS)) and None, record(0.5)
        )
    with pytest.raises(ValueError, match="serialize"):
        registry.add("lora", writer(1), record(0.5, settings={"model": torch.nn.Identity()}))
    assert registry.versions("lora") == []


def _add_some(folder: Path, start: int) -> None:
    registry = Registry(folder)
    for value in range(start, start + 5):
        kept = registry.decide("lora", writer(value), record(0.5), None, scores(0.6))
        registry.promote("lora", kept.version)


def test_two_processes_add_and_promote_at_once(registry: Registry) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_add_some, args=(registry.folder, start)) for start in (0, 100)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(20)
        assert worker.exitcode == 0
    found = registry.versions("lora")
    assert [int(v.version[:4]) for v in found] == list(range(1, 11))
    assert not any(v.damage for v in found)
    moves = registry.history("lora")
    assert [m.previous for m in moves] == [None, *(m.version for m in moves[:-1])]
    assert sorted(str(m.version) for m in moves) == [v.version for v in found]
    assert served(registry) == moves[-1].version


def test_fingerprint_follows_the_data(tmp_path: Path) -> None:
    labels = {name: tmp_path / name for name in ("b", "a")}
    for name, path in labels.items():
        path.write_text(name)
    split = {"train": ("a", "c"), "validation": ("b",)}
    found = DataFingerprint.of(labels, split)
    assert found.images == ("a", "b", "c")
    # of the letter a, as sha256sum prints it
    assert found.labels["a"] == "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
    shuffled = DataFingerprint(
        ("c", "b", "a"), dict(reversed(found.labels.items())), {**split, "train": ("c", "a")}
    )
    assert shuffled.digest == found.digest
    labels["b"].write_text("changed")
    assert DataFingerprint.of(labels, split).digest != found.digest
    assert DataFingerprint.of(labels, {"train": ("a", "b", "c")}).digest != found.digest
    with pytest.raises(ValueError, match="'b' is both in train and in test"):
        DataFingerprint(("a", "b"), {}, {"train": ("a", "b"), "test": ("b",)})
    with pytest.raises(ValueError, match="'d' has a label"):
        DataFingerprint(("a",), {"d": "0"}, {})


def test_diff_names_what_changed(registry: Registry) -> None:
    old = registry.add("lora", writer(1), record(0.5, 0.6, 0.7))
    data = DataFingerprint(
        ("b", "c", "d"),
        {"b": "3" * 64, "c": "4" * 64},
        {"train": ("b",), "validation": ("c",), "test": ("d",)},
    )
    settings = {"epochs": 3, "rates": {"": 1e-3}, "batch": 8}
    new = registry.add("lora", writer(2), record(0.9, 0.8, data=data, settings=settings))
    found = diff_versions(old, new)
    assert (found.added, found.removed, found.relabelled, found.moved) == (
        ("d",),
        ("a",),
        ("b", "c"),
        ("b", "c"),
    )
    assert found.settings == {"training.rates.": (1e-4, 1e-3), "training.batch": (None, 8)}
    assert (found.labels[0].cases, found.unshared) == (2, 1)
    assert found.labels[0].gain == pytest.approx(0.3)
    same = diff_versions(old, old)
    assert (same.added, same.settings, same.unshared) == ((), {}, 0)
    _cut_record(new)
    with pytest.raises(ValueError, match="is damaged"):
        diff_versions(old, registry.get("lora", new.version))
