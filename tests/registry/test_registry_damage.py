"""After crashes, full disks and damage to files, the registry serves the newest version that is whole."""

from __future__ import annotations

import errno
import json
import logging
import os
from pathlib import Path

import pytest
from segmed.registry.model_version import ModelVersion
from segmed.registry.versions import Registry
from small_versions import add, cut_record, record, scores, served, writer


def full_disk(monkeypatch: pytest.MonkeyPatch, *, folder: bool) -> None:
    """Renaming of folders, or of files, fails."""
    real = os.replace

    def replace_or_fail(source: Path, target: Path) -> None:
        if Path(source).is_dir() == folder:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", replace_or_fail)


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
    "metrics.json is damaged at the text": cut_record,
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
