"""Rounds of prompting: what is played, what learns, and that it repeats."""

from __future__ import annotations

import pytest
import torch
from segmed.pretraining.backbone.interactive import InteractiveStep
from segmed.pretraining.backbone.stream import PromptedBatch
from segmed.sam.tiny import initialised, tiny_config
from segmed.simulation.prompts import PromptConfig, tight_boxes
from torch import Tensor


@pytest.fixture
def step() -> InteractiveStep:
    shape = tiny_config(
        64, hidden=64, heads=2, width=32, stem_channels=(16, 32, 32, 32), stem_depths=(0, 0, 1, 0)
    )
    return InteractiveStep(initialised(shape, seed=0))


def _discs(count: int, boxed: int) -> PromptedBatch:
    yy, xx = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    truth = torch.stack([(xx - 20 - 3 * n) ** 2 + (yy - 30) ** 2 <= (8 + n) ** 2 for n in range(count)])
    images = truth[:, None].float().expand(-1, 3, -1, -1) * 0.8 + 0.1
    clicks = torch.tensor([[20.0 + 3 * n, 30.0] for n in range(count)])
    return PromptedBatch(images, truth, tight_boxes(truth), clicks, boxed)


def _play(step: InteractiveStep, seed: int, count: int = 6, boxed: int = 4) -> tuple[Tensor, Tensor]:
    loss, ious = step(_discs(count, boxed), torch.Generator().manual_seed(seed))
    return loss, ious


def test_a_seed_repeats_a_step(step: InteractiveStep) -> None:
    losses = [_play(step, seed)[0] for seed in (1, 1, 2, 3, 4, 5)]
    assert torch.equal(losses[0], losses[1])
    assert len({float(loss.detach()) for loss in losses}) > 1


def test_rounds_vary_and_every_sample_is_measured(step: InteractiveStep) -> None:
    played = set()
    for seed in range(60):
        _, ious = _play(step, seed)
        assert ious.shape[1] == 6
        assert ((ious >= 0) & (ious <= 1)).all()
        played.add(len(ious))
    assert played == {1, 2, 3, 4, 5}


@pytest.mark.parametrize("boxed", [0, 6])
def test_one_kind_of_prompt_alone(step: InteractiveStep, boxed: int) -> None:
    loss, ious = _play(step, 3, boxed=boxed)
    assert torch.isfinite(loss)
    assert ious.shape[1] == 6


def test_rounds_end_where_the_settings_say(step: InteractiveStep) -> None:
    step.prompts = PromptConfig(max_rounds=1)
    assert {len(_play(step, seed)[1]) for seed in range(10)} == {1}


def test_every_part_that_prompts_reach_gets_a_gradient(step: InteractiveStep) -> None:
    for layer in step.model.vision_encoder.layers:  # which start as the identity
        torch.nn.init.normal_(layer.attn.proj.weight, 0, 0.02)
        torch.nn.init.normal_(layer.mlp.lin2.weight, 0, 0.02)
    total: dict[str, Tensor] = {}
    for seed in range(8):
        step.zero_grad()
        _play(step, seed)[0].backward()
        for name, parameter in step.model.named_parameters():
            if parameter.grad is not None:
                total[name] = total.get(name, torch.zeros(())) + parameter.grad.abs().sum()
    silent = [
        n
        for n, p in step.model.named_parameters()
        if p.requires_grad and not total.get(n, torch.zeros(())) > 0
    ]
    assert silent == []
    assert not any("positional" in name for name in total)


def test_it_learns_to_fill_a_disc(step: InteractiveStep) -> None:
    optimiser = torch.optim.AdamW([p for p in step.parameters() if p.requires_grad], lr=2e-3)
    before = torch.stack([_play(step, 100 + n)[1][-1].mean() for n in range(3)]).mean()
    for seed in range(60):
        optimiser.zero_grad()
        _play(step, seed)[0].backward()
        optimiser.step()
    after = torch.stack([_play(step, 100 + n)[1][-1].mean() for n in range(3)]).mean()
    assert after > max(0.6, before + 0.2)
