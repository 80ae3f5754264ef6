"""Checkpoints: the old one or the new one is whole at any moment, and none of another training is taken."""

from __future__ import annotations

import errno
import os
import pickle
import resource
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from segmed.data.slices import SliceDataset
from segmed.training.checkpoint import data_facts, load_checkpoint, save_checkpoint
from small_training import make_discs

FACTS = {"recipe": "slow", "batch": "4"}


def test_there_and_back(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    assert load_checkpoint(path, FACTS) is None
    state = {"weights": {"a": torch.arange(3.0)}, "best": 0.5, "history": [{"epoch": 1}], "ended": None}
    save_checkpoint(path, FACTS, state)
    back = load_checkpoint(path, FACTS)
    assert back is not None
    assert torch.equal(back.pop("weights")["a"], torch.arange(3.0))
    state.pop("weights")
    assert back == state
    assert list(tmp_path.iterdir()) == [path]


def test_another_training_is_refused_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, FACTS, {})
    with pytest.raises(ValueError, match="made with another batch, 4 instead of 8"):
        load_checkpoint(path, {**FACTS, "batch": "8"})
    with pytest.raises(ValueError, match="made with another code version, None instead of 2"):
        load_checkpoint(path, {**FACTS, "code version": "2"})


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("evil",)


def test_files_that_are_none_are_refused_and_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, FACTS, {"a": torch.zeros(1000)})
    whole = path.read_bytes()
    torch.save({"facts": FACTS, "state": Evil()}, path)
    evil = path.read_bytes()
    for content in (whole[:-100], b"", evil, pickle.dumps(Evil())):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="damaged"):
            load_checkpoint(path, FACTS)
    assert not (tmp_path / "evil").exists()


def _save_large(folder: Path) -> None:
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    with pytest.raises(OSError, match=r"could not be written.*too large.*Free space"):
        save_checkpoint(folder / "checkpoint.pt", FACTS, {"a": torch.zeros(10**6)})


def test_without_space_the_old_one_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, FACTS, {"step": 1})
    process = get_context("fork").Process(target=_save_large, args=(tmp_path,))
    process.start()
    process.join(600)
    assert process.exitcode == 0

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(path, FACTS, {"step": 2})
    assert load_checkpoint(path, FACTS) == {"step": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_data_is_known_by_its_content(discs: SliceDataset, tmp_path: Path) -> None:
    same = make_discs(tmp_path / "same")
    assert data_facts(same) == data_facts(discs)
    label = same.volumes[1].label
    label.write_bytes(same.volumes[0].label.read_bytes())
    assert data_facts(same) != data_facts(discs)
    assert data_facts(discs.of(discs.patients[:1])) != data_facts(discs)
    assert data_facts(discs).startswith("8 slices of 2 images")
