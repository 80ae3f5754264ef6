"""Learning rates follow the recipe and its schedule, and losses or settings without sense are refused."""

from __future__ import annotations

import math

import pytest
import torch
from recorder import Recorder
from segmed.data.slices import SliceDataset
from segmed.methods.base.trainable import Recipe
from segmed.training.finetune import Finetuning, LossNotFinite, rate_factor
from segmed.training.finetune_config import FinetuneConfig
from small_training import tuned


def test_rates_of_the_recipe(discs: SliceDataset) -> None:
    method = tuned(
        rates={"": 1e-4, "model.mask_decoder.transformer.": 1e-2}, optimiser="adamw", weight_decay=0.3
    )
    training = Finetuning(method, discs, FinetuneConfig(steps=1))
    assert isinstance(training.optimiser, torch.optim.AdamW)
    rates = {id(p): g["lr"] for g in training.optimiser.param_groups for p in g["params"]}
    decoder = method.model.mask_decoder
    assert rates[id(decoder.transformer.layers[0].mlp.lin1.weight)] == 1e-2
    assert rates[id(decoder.mask_tokens.weight)] == 1e-4
    assert {g["weight_decay"] for g in training.optimiser.param_groups} == {0.3}
    with pytest.raises(ValueError, match=r"no learning rate for 'model\.mask_decoder"):
        Finetuning(tuned(rates={"gafl.": 1.0}), discs)


def test_schedules() -> None:
    constant, linear = Recipe({"": 1.0}), Recipe({"": 1.0}, schedule="linear")
    assert {rate_factor(constant, step, 10) for step in range(10)} == {1.0}
    assert (rate_factor(linear, 0, 10), rate_factor(linear, 10, 10)) == (1.0, pytest.approx(1e-3))
    poly = Recipe({"": 1.0}, schedule="poly", warmup=10)
    assert [rate_factor(poly, step, 100) for step in (0, 4, 9, 10)] == pytest.approx([0.1, 0.5, 1.0, 1.0])
    assert rate_factor(poly, 60, 100) == pytest.approx(0.5**0.9)
    # a warm-up longer than the run would never end
    assert rate_factor(poly, 2, 20) == 1.0


def test_the_plateau_schedule_halves_the_rate(discs: SliceDataset) -> None:
    for loss, halvings in ((lambda w: w * 0 + 1, 1), (lambda w: w, 0)):
        method = Recorder(Recipe({"": 1e-3}, "dice_bce", schedule="plateau"), loss)
        training = Finetuning(method, discs, FinetuneConfig(epochs=8, batch=3))
        training.run()
        assert training.optimiser.param_groups[0]["lr"] == pytest.approx(1e-3 / 2**halvings)


def test_a_loss_that_is_not_finite_stops(discs: SliceDataset) -> None:
    method = Recorder(Recipe({"": 1e-3}), lambda weight: weight * math.nan)
    with pytest.raises(LossNotFinite, match=r"step 1 is nan.*lower learning rate"):
        Finetuning(method, discs).run()
    # the loss is 0 and its gradient infinite
    steep = Recorder(Recipe({"": 1e-3}), lambda weight: (weight - weight.detach()).abs().sqrt())
    with pytest.raises(LossNotFinite, match="gradient of step 1 has the norm"):
        Finetuning(steep, discs).run()
    assert steep.weight == 1


@pytest.mark.parametrize(
    "changes", [{"steps": 0}, {"batch": 0}, {"epochs": -1}, {"clip": 0}, {"one_label_share": 2}]
)
def test_settings_that_make_no_sense(changes: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=str(next(iter(changes.values())))):
        FinetuneConfig(**changes)  # type: ignore[arg-type]
