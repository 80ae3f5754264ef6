"""A run in a folder: it survives whatever interrupts it, and keeps the best weights."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from segmed.data.slices import SliceDataset
from segmed.evaluation.case_scores import mean_dice
from segmed.methods.lora import LoraSam, LoraSamConfig
from segmed.training.finetune_config import FinetuneConfig
from segmed.training.loop import TrainingRun
from segmed.training.progress import Progress
from segmed.training.validation import validate
from small_training import SmallTuning, small_sam, tuned
from torch import Tensor

CONFIG = FinetuneConfig(epochs=4, batch=3, seed=5)


def _run(data: SliceDataset, held_out: SliceDataset | None, folder: Path, **changes: object) -> TrainingRun:
    method = tuned("brats", rates={"": 1e-3}, schedule="plateau")
    return TrainingRun(method, data, held_out, replace(CONFIG, **changes), folder)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def straight(
    discs: SliceDataset, held_out: SliceDataset, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainingRun, list[Progress]]:
    """A run that nothing interrupted, and what it told."""
    run = _run(discs, held_out, tmp_path_factory.mktemp("straight"))
    told: list[Progress] = []
    run.run(told.append)
    return run, told


def _same(run: TrainingRun, straight: TrainingRun) -> None:
    assert run.history == straight.history
    assert (run.best, run.best_epoch, run.scores) == (straight.best, straight.best_epoch, straight.scores)
    assert isinstance(run.method, SmallTuning) and isinstance(straight.method, SmallTuning)
    assert torch.equal(run.method.weight_vector(), straight.method.weight_vector())
    one, other = run.training.state(), straight.training.state()
    for index, entry in other["optimiser"]["state"].items():
        assert all(torch.equal(entry[k], one["optimiser"]["state"][index][k]) for k in entry)


def test_it_tells_and_leaves_what_a_person_wants_to_see(
    straight: tuple[TrainingRun, list[Progress]], held_out: SliceDataset
) -> None:
    run, told = straight
    assert [(p.epoch, p.epochs, p.step, p.steps) for p in told] == [
        (1 + n // 2, 4, n + 1, 8) for n in range(8)
    ]
    assert [p.loss for p in told] == run.training.losses
    assert math.isnan(told[0].best) and told[2].best == run.history[0]["dice"]
    assert all(p.seconds_left >= 0 for p in told) and told[-1].seconds_left == 0
    log = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    assert log == run.history and [e["step"] for e in log] == [2, 4, 6, 8]
    assert log[1]["loss"] == pytest.approx(sum(run.training.losses[2:4]) / 2)
    assert run.best == max(e["dice"] for e in log)
    # the best weights are in the method, and score what was said
    scores = validate(run.method, held_out.with_object(), prompted=True).scores
    assert mean_dice(scores) == pytest.approx(run.best, abs=0.02)
    assert not run.method.training
    for name in ("curves.png", "validation.png"):
        assert (run.folder / name).read_bytes().startswith(b"\x89PNG")
    assert any(path.stat().st_size > 100 for path in (run.folder / "events").iterdir())
    assert not list(run.folder.glob("*.bin"))


def _killed(make: Callable[[], TrainingRun], step: int) -> None:
    def tell(progress: Progress) -> None:
        if progress.step == step:
            os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    make().run(tell)


def test_kill_at_any_moment_and_go_on(
    straight: tuple[TrainingRun, list[Progress]], discs: SliceDataset, held_out: SliceDataset, tmp_path: Path
) -> None:
    for step in (1, 5, 5):  # in the first pass, and twice in the third
        process = get_context("fork").Process(
            target=_killed, args=(lambda: _run(discs, held_out, tmp_path), step)
        )
        process.start()
        process.join(600)
        assert process.exitcode == -signal.SIGKILL
        assert (tmp_path / "checkpoint.pt").exists() == (step > 1)
    run = _run(discs, held_out, tmp_path)
    assert run.training.step == 4
    assert run.training.encoder.kept(3) is not None
    assert run.run().ended == "finished"
    assert run.training.encoder.encoded == 1
    _same(run, straight[0])


def test_a_stop_loses_nothing(
    straight: tuple[TrainingRun, list[Progress]], discs: SliceDataset, held_out: SliceDataset, tmp_path: Path
) -> None:
    first = _run(discs, held_out, tmp_path)
    start = tuned("brats").weight_vector()
    result = first.run(stop=lambda: True)
    assert (result.ended, result.step, result.best_epoch) == ("stopped", 1, 0)
    assert result.message == "Stopped after 1 of 8 steps."
    assert isinstance(first.method, SmallTuning)
    assert not torch.equal(first.method.weight_vector(), start)  # the last weights, for want of a validation
    second = _run(discs, held_out, tmp_path)
    result = second.run(stop=lambda: second.training.step >= 4)
    assert (result.ended, result.step) == ("stopped", 5)
    assert result.best == max(e["dice"] for e in straight[0].history[:2])
    third = _run(discs, held_out, tmp_path)
    assert third.run().ended == "finished"
    _same(third, straight[0])
    # what is finished stays so, without a step
    told: list[Progress] = []
    fourth = _run(discs, held_out, tmp_path)
    again = fourth.run(told.append)
    assert (again.ended, told) == ("finished", [])
    _same(fourth, straight[0])


def test_another_training_in_the_folder_is_refused(
    straight: tuple[TrainingRun, list[Progress]], discs: SliceDataset, held_out: SliceDataset
) -> None:
    folder = straight[0].folder
    with pytest.raises(ValueError, match="made with another batch, 3 instead of 2"):
        _run(discs, held_out, folder, batch=2)
    with pytest.raises(ValueError, match="made with another training data, 8 slices of 2 images"):
        _run(discs.thinned(3), held_out, folder)
    with pytest.raises(ValueError, match=r"made with another validation data, .* instead of none"):
        _run(discs, None, folder)
    with pytest.raises(ValueError, match="both in training and in validation"):
        _run(discs, discs, folder)
    _run(discs, held_out, folder, micro=1, cache_bytes=0)


class Failing(SmallTuning):
    """Its loss is no number once it was asked so many times."""

    left = 10**9

    def loss_from(self, *question: object) -> Tensor:  # type: ignore[override]
        self.left -= 1
        return super().loss_from(*question) * (math.nan if self.left < 0 else 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("validated", [True, False])
def test_a_loss_that_is_no_number_gives_the_last_good_weights(
    discs: SliceDataset, held_out: SliceDataset, tmp_path: Path, validated: bool
) -> None:
    def failing(left: int) -> TrainingRun:
        method = tuned("brats", rates={"": 1e-3}, schedule="plateau")
        method.__class__ = Failing
        vars(method)["left"] = left
        return TrainingRun(method, discs, held_out if validated else None, CONFIG, tmp_path)

    run = failing(3)
    result = run.run()
    assert result.ended == "not finite"
    assert "step 4 is nan" in result.message and "kept" in result.message
    assert (result.step, len(result.history)) == (3, 1)
    assert isinstance(run.method, SmallTuning)
    whole = _run(discs, held_out, tmp_path / "whole", steps=2)
    whole.run()
    assert isinstance(whole.method, SmallTuning)
    assert torch.equal(run.method.weight_vector(), whole.method.weight_vector())
    # with a cure it goes on from the last pass
    assert failing(10**9).run().ended == "finished"


def test_it_ends_when_nothing_is_gained(discs: SliceDataset, held_out: SliceDataset, tmp_path: Path) -> None:
    method = tuned("brats", rates={"": 0.0}, weight_decay=0.0)
    run = TrainingRun(method, discs, held_out, replace(CONFIG, epochs=9, patience=2), tmp_path)
    result = run.run()
    assert (result.ended, result.best_epoch, len(result.history)) == ("no gain", 1, 3)
    assert "did not rise in the 2 passes" in result.message
    again = TrainingRun(
        tuned("brats", rates={"": 0.0}, weight_decay=0.0), discs, held_out, run.config, tmp_path
    )
    assert again.run().ended == "no gain"


def test_a_model_that_finds_nothing_is_not_done(
    discs: SliceDataset, held_out: SliceDataset, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    method = LoraSam(small_sam(), LoraSamConfig(("bright", "dark")))
    with torch.no_grad():  # the hypernetwork of the background wins everywhere, and cannot learn
        method.model.mask_decoder.upscale_conv2.weight.zero_()
        method.model.mask_decoder.upscale_conv2.bias.fill_(10)
        for place, network in enumerate(method.model.mask_decoder.output_hypernetworks_mlps):
            network.proj_out.weight.zero_()
            network.proj_out.bias.fill_(1.0 if place == 1 else -1.0)
    method.recipe = replace(method.recipe, rates={"": 1e-7}, weight_decay=0.0)
    result = TrainingRun(method, discs, held_out, replace(CONFIG, epochs=1), tmp_path).run()
    assert (result.ended, result.best) == ("background only", 0)
    assert "predicts only background on every validation case" in result.message


def test_a_full_disk_ends_with_the_last_checkpoint(
    discs: SliceDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _run(discs, None, tmp_path)
    sync, calls = os.fsync, 0

    def full(file: int) -> None:
        nonlocal calls
        calls += 1
        if calls > 2:  # the first checkpoint syncs file and folder
            raise OSError(28, "No space left on device")
        sync(file)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"could not be written.*No space left"):
        run.run()
    monkeypatch.undo()
    assert _run(discs, None, tmp_path).training.step == 2
