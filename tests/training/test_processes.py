"""Two processes on one batch learn what one learns."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from segmed.data.slices import SliceDataset
from segmed.methods.base.trainable import TrainableSegmenter
from segmed.methods.lora import LoraSam, LoraSamConfig
from segmed.training.finetune_config import FinetuneConfig
from segmed.training.loop import TrainingRun
from segmed.training.processes import Processes, torchrun_processes
from small_training import small_sam, tuned

# six slices with objects in steps of 3: one process has two of them, the other one
CONFIG = FinetuneConfig(epochs=3, batch=3, one_label_share=1)


def _decoder() -> TrainableSegmenter:
    return tuned("brats", rates={"": 1e-3})


def _lora() -> TrainableSegmenter:
    torch.manual_seed(0)
    method = LoraSam(small_sam(), LoraSamConfig(("bright", "dark")))
    # large steps, so that they show; the optimiser's own smoothing hides differences of tiny gradients
    method.recipe = replace(method.recipe, rates={"": 1e-3}, warmup=0)
    return method


def _train(
    make: Callable[[], TrainableSegmenter], data: SliceDataset, held_out: SliceDataset, folder: Path
) -> None:
    method = make()
    run = TrainingRun(method, data, held_out, CONFIG, folder)
    wrote = run.run()
    rank = Processes.current().rank
    facts = {"weights": run.training.weights(), "losses": run.training.losses, "dice": wrote.best}
    facts["scores"] = [(s.case, s.label, s.dice) for s in wrote.scores]
    torch.save(facts, folder / f"rank{rank}.pt")


def _one_of_two(rank: int, port: int, work: Callable[[], None]) -> None:
    torch.set_num_threads(1)
    names = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": 2,
        "MASTER_PORT": port,
        "MASTER_ADDR": "127.0.0.1",
    }
    os.environ.update({k: str(v) for k, v in names.items()})
    with torchrun_processes("cpu") as device:
        assert device == "cpu"
        work()


def _in_two(work: Callable[[], None]) -> list[int | None]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [get_context("fork").Process(target=_one_of_two, args=(r, port, work)) for r in range(2)]
    for process in started:
        process.start()
    for process in started:
        process.join(600)
    return [process.exitcode for process in started]


@pytest.mark.parametrize("make", [_decoder, _lora])
def test_two_are_one(
    make: Callable[[], TrainableSegmenter], discs: SliceDataset, held_out: SliceDataset, tmp_path: Path
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    _train(make, discs, held_out, tmp_path / "one")
    assert _in_two(lambda: _train(make, discs, held_out, tmp_path / "two")) == [0, 0]
    one = torch.load(tmp_path / "one" / "rank0.pt")
    start = {k: v for k, v in make().state_dict().items() if k in one["weights"]}
    for rank in range(2):
        two = torch.load(tmp_path / "two" / f"rank{rank}.pt")
        assert two["losses"] == pytest.approx(one["losses"], rel=1e-4)
        assert two["dice"] == pytest.approx(one["dice"], abs=1e-3)
        assert [s[:2] for s in two["scores"]] == [s[:2] for s in one["scores"]]
        moved = torch.cat([(one["weights"][k] - start[k]).flatten() for k in start])
        apart = torch.cat([(one["weights"][k] - two["weights"][k]).flatten() for k in start])
        assert apart.norm() < 0.01 * moved.norm()
    assert sorted(p.name for p in (tmp_path / "two").glob("*.jsonl")) == ["log.jsonl"]


def _stopped(make: Callable[[], TrainableSegmenter], data: SliceDataset, folder: Path) -> None:
    rank = Processes.current().rank
    run = TrainingRun(make(), data, None, CONFIG, folder)
    result = run.run(stop=lambda: rank == 0 and run.training.step >= 2)
    assert (result.ended, result.step) == ("stopped", 3)
    with pytest.raises(ValueError, match="another batch"):
        TrainingRun(make(), data, None, replace(CONFIG, batch=6), folder)
    with pytest.raises(ValueError, match="1 slices, too few for 2 processes"):
        TrainingRun(make(), data, None, replace(CONFIG, batch=1), folder)


def test_all_stop_when_one_is_told_to(discs: SliceDataset, tmp_path: Path) -> None:
    assert _in_two(lambda: _stopped(_decoder, discs, tmp_path)) == [0, 0]
    alone = TrainingRun(_decoder(), discs, None, CONFIG, tmp_path)
    assert alone.training.step == 3  # another number of processes goes on
    assert alone.run().ended == "finished"
