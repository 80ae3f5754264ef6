"""Versions never change once added; moves of the pointer, rollbacks and decisions take effect at once."""

from __future__ import annotations

import json
import math
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest
import segmed
import torch
from safetensors.torch import load_file
from segmed.registry.versions import Registry
from small_versions import DATA, FACTS, add, record, scores, served, writer


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
