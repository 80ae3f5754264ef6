"""Training from scratch: it learns, goes on where it was stopped, and gives the same from the same seed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from segmed.pretraining.backbone.stream import PromptedBatch
from segmed.pretraining.backbone.trainer import ScratchConfig, ScratchTraining
from segmed.sam.tiny import initialised, tiny_config
from segmed.simulation.prompts import tight_boxes
from torch import Tensor


def _discs(seed: int) -> PromptedBatch:
    """Six bright or dark discs in noise."""
    generator = torch.Generator().manual_seed(seed)
    yy, xx = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    draw = torch.rand(6, 4, generator=generator)
    x, y, radius = draw[:, 0] * 16 + 8, draw[:, 1] * 16 + 8, draw[:, 2] * 5 + 4
    truth = (xx - x[:, None, None]) ** 2 + (yy - y[:, None, None]) ** 2 <= radius[:, None, None] ** 2
    grey = 0.5 + 0.4 * truth * torch.sign(draw[:, 3] - 0.5)[:, None, None]
    grey = grey + 0.05 * torch.randn(grey.shape, generator=generator)
    images = grey[:, None].expand(-1, 3, -1, -1).clamp(0, 1)
    return PromptedBatch(images, truth, tight_boxes(truth), torch.stack([x, y], 1), 3)


def _training(folder: Path, seed: int = 0, **changes: object) -> ScratchTraining:
    shape = tiny_config(
        32, hidden=32, heads=2, width=32, stem_channels=(16, 32, 32, 32), stem_depths=(0, 0, 1, 0)
    )
    settings = {
        "steps": 6,
        "seed": seed,
        "warmup": 2,
        "validate_every": 3,
        "validation_batches": 1,
        **changes,
    }
    config = ScratchConfig(**settings)  # type: ignore[arg-type]
    return ScratchTraining(initialised(shape, seed), config, _discs, _discs, folder)


def _weights(training: ScratchTraining) -> Tensor:
    return torch.cat([p.detach().flatten() for p in training.average.parameters()])


def test_a_stopped_run_goes_on_to_the_same_result(tmp_path: Path) -> None:
    whole = _training(tmp_path / "whole")
    whole.run()
    first = _training(tmp_path / "parts")
    first.run(until=3)
    assert first.step == 3
    second = _training(tmp_path / "parts")
    assert second.step == 3
    second.run()
    assert torch.equal(_weights(second), _weights(whole))
    entries = [json.loads(line) for line in (tmp_path / "parts" / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries] == [3, 6]
    assert {"box", "click", "five clicks"} <= set(entries[0])


def test_a_run_that_is_killed_loses_at_most_the_steps_since_its_checkpoint(tmp_path: Path) -> None:
    whole = _training(tmp_path / "whole")
    whole.run()
    killed = _training(tmp_path / "killed")

    def die(step: int, loss: float) -> None:
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        killed.run(die)
    again = _training(tmp_path / "killed")
    assert again.step == 3
    again.run()
    assert torch.equal(_weights(again), _weights(whole))


def test_seeds_matter(tmp_path: Path) -> None:
    runs = [_training(tmp_path / str(n), seed) for n, seed in enumerate((1, 1, 2))]
    for run in runs:
        run.run()
    assert torch.equal(_weights(runs[0]), _weights(runs[1]))
    assert not torch.equal(_weights(runs[0]), _weights(runs[2]))


def test_it_learns(tmp_path: Path) -> None:
    training = _training(tmp_path, steps=200, validate_every=200, learning_rate=2e-3, warmup=20)
    before = training.validate()["box"]
    training.run()
    assert training.log[-1]["box"] > max(0.6, before + 0.3)
    assert training.log[-1]["click"] > 0.5


def test_checkpoints_of_other_settings_or_damaged_ones_are_refused(tmp_path: Path) -> None:
    _training(tmp_path).run()
    with pytest.raises(ValueError, match="other settings"):
        _training(tmp_path, warmup=3)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="damaged"):
        _training(tmp_path)


def test_the_length_may_change_until_the_rate_falls(tmp_path: Path) -> None:
    first = _training(tmp_path, steps=12)
    first.run(until=3)
    longer = _training(tmp_path, steps=6)
    assert longer.step == 3
    longer.run()
    assert longer.step == 6


def test_the_rate_rises_and_falls() -> None:
    config = ScratchConfig(steps=1000, warmup=100, decay=0.4, learning_rate=1.0)
    assert config.rate(0) == pytest.approx(0.01)
    assert config.rate(99) == config.rate(100) == config.rate(600) == pytest.approx(1.0)
    assert config.rate(800) == pytest.approx(0.5)
    assert config.rate(999) == pytest.approx(0.0025)


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"learning_rate": 0.0},
        {"ema": 1.0},
        {"validate_every": 0},
        {"clip": -1.0},
        {"decay": 2.0},
    ],
)
def test_wrong_settings_are_named(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ScratchConfig(**wrong)  # type: ignore[arg-type]
