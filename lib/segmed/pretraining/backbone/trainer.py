"""Training of a promptable model from scratch on synthetic images: resumable and reproducible."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from segmed.pretraining.backbone.interactive import InteractiveStep
from segmed.pretraining.backbone.stream import PromptedBatch
from segmed.pretraining.checkpoints import read_state, write_log, write_state
from segmed.simulation.prompts import PromptConfig

Draw = Callable[[int], PromptedBatch]
_VALIDATION_SEED = 10**9  # far from every step of training
_MAX_STEPS = 10**8


@dataclass(frozen=True)
class ScratchConfig:
    """The settings of the training.

    Attributes:
        steps: Optimiser steps.
        seed: Seed of all random draws.
        learning_rate: Learning rate of both optimisers; it rises linearly over `warmup` steps, stays
            constant, and falls linearly to zero in the last `decay` of all steps. The number of steps may be
            changed when a run is resumed, as long as its rate has not begun to fall.
        warmup: Steps of the warm-up.
        decay: Share of the steps with a falling learning rate.
        weight_decay: Weight decay of weights with two or more axes.
        clip: Largest norm of the gradient.
        ema: Decay of the running average of weights, which is validated and saved.
        validate_every: Steps between validations; a checkpoint is written at each.
        validation_batches: Batches of a validation.
    """

    steps: int = 20_000
    seed: int = 0
    learning_rate: float = 8e-4
    warmup: int = 200
    decay: float = 0.35
    weight_decay: float = 0.05
    clip: float = 1.0
    ema: float = 0.999
    validate_every: int = 500
    validation_batches: int = 8

    def __post_init__(self) -> None:
        if not 1 <= self.steps < _MAX_STEPS:
            raise ValueError(f"steps is {self.steps}; give a number from 1 to {_MAX_STEPS - 1}.")
        if self.learning_rate <= 0 or self.clip <= 0 or not 0 <= self.ema < 1 or not 0 <= self.decay <= 1:
            raise ValueError(
                f"learning_rate is {self.learning_rate} and clip is {self.clip}, which must be above 0; ema "
                f"is {self.ema}, which must be in [0, 1); decay is {self.decay}, which must be in [0, 1]."
            )
        if self.validate_every < 1 or self.validation_batches < 1:
            raise ValueError(
                f"validate_every is {self.validate_every} and validation_batches is "
                f"{self.validation_batches}; both must be at least 1."
            )

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        return self.learning_rate * min(1.0, (self.steps - step) / max(1.0, self.decay * self.steps))


class ScratchTraining:
    """A resumable run in a folder with `checkpoint.pt`, and `log.jsonl` with the validations.

    Under torchrun each process generates its share of the images of a step, and gradients are averaged.

    Args:
        model: An untrained SamModel; its weights are replaced if the folder holds a checkpoint.
        config: The settings of the training.
        draw: Function that generates the training batch of a seed on the device.
        draw_held_out: Function that generates the validation batch of a seed, about half of it prompted by
            boxes and half of it by clicks.
        folder: Folder of the run.
        device: The device, such as `cpu` or `cuda:0`.
        prompts: The settings of simulated prompts.
        facts: Further facts that a checkpoint must agree with, such as the settings behind `draw`.

    Raises:
        ValueError: If the checkpoint in the folder belongs to another configuration or is damaged.
    """

    def __init__(
        self,
        model: nn.Module,
        config: ScratchConfig,
        draw: Draw,
        draw_held_out: Draw,
        folder: Path,
        device: str = "cpu",
        prompts: PromptConfig | None = None,
        facts: str = "",
    ) -> None:
        self.config, self.folder, self.device, self.facts = config, folder, device, facts
        self.draw, self.draw_held_out = draw, draw_held_out
        self.rank, self.world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        self.model = model.to(device)
        self.average = copy.deepcopy(self.model).requires_grad_(False).eval()
        torch.manual_seed(config.seed)
        inner = InteractiveStep(self.model, prompts).to(device)
        self.prompts = inner.prompts
        self.inner = inner
        self.optimisers = _optimisers(inner, config)
        self.step = 0
        self.log: list[dict[str, float]] = []
        folder.mkdir(parents=True, exist_ok=True)
        self._resume()
        # Heads that are not used in any round of a step have no gradient.
        self.forward = (
            DistributedDataParallel(inner, find_unused_parameters=True) if self.world > 1 else inner
        )

    def run(self, tell: Callable[[int, float], None] | None = None, until: int | None = None) -> None:
        """Train to the end, or `until` a step; a checkpoint is written at each validation and at the end.

        Args:
            tell: Function called with the step and its loss.
            until: Step before which to stop, or None for the last one.
        """
        last = min(self.config.steps, until or self.config.steps)
        while self.step < last:
            loss = self._train_step()
            self.step += 1
            if tell:
                tell(self.step, loss)
            if self.step % self.config.validate_every == 0 or self.step == self.config.steps:
                self.log.append({"step": self.step, "loss": loss, "seconds": time.time(), **self.validate()})
                self._save()
        if self.log and self.log[-1]["step"] != self.step:
            self._save()

    def _train_step(self) -> float:
        seed = (self.config.seed * _MAX_STEPS + self.step) * self.world + self.rank
        batch = self.draw(seed)
        generator = torch.Generator(self.device).manual_seed(seed + 1)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = self.config.rate(self.step)
            optimiser.zero_grad(set_to_none=True)
        self.model.train()
        with self._autocast():
            loss, _ = self.forward(batch, generator)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        for optimiser in self.optimisers:
            optimiser.step()
        # The average forgets faster at first; otherwise it would keep the random initial weights.
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for kept, fresh in zip(self.average.parameters(), self.model.parameters(), strict=True):
                kept.lerp_(fresh.detach(), 1 - decay)
        return float(loss.detach())

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean Dice of the averaged model on held-out images after a box, one click, and five clicks."""
        out: dict[str, list[Tensor]] = {"box": [], "click": [], "five clicks": []}
        step = _FixedRounds(self.average, self.prompts)
        for n in range(self.config.validation_batches):
            batch = self.draw_held_out(_VALIDATION_SEED + n)
            generator = torch.Generator(self.device).manual_seed(_VALIDATION_SEED + n)
            with self._autocast():
                iou = step(batch, generator)[1]
            dice = 2 * iou / (1 + iou)
            out["box"].append(dice[0, : batch.boxed])
            out["click"].append(dice[0, batch.boxed :])
            out["five clicks"].append(dice[-1, batch.boxed :])
        return {name: float(torch.cat(dice).mean()) for name, dice in out.items()}

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.split(":")[0], torch.bfloat16)

    def _facts(self) -> str:
        return repr((replace(self.config, steps=1), self.prompts, self.world, self.facts))

    def _save(self) -> None:
        if self.rank:
            return
        state = {
            "facts": self._facts(),
            "step": self.step,
            "log": self.log,
            "model": self.inner.state_dict(),
            "average": self.average.state_dict(),
            "optimisers": [o.state_dict() for o in self.optimisers],
        }
        write_state(state, self.folder / "checkpoint.pt")
        write_log(self.log, self.folder)

    def _resume(self) -> None:
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return
        state = read_state(path, self._facts(), str(self.device))
        self.inner.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        for optimiser, kept in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        self.step, self.log = state["step"], state["log"]


def _optimisers(step: nn.Module, config: ScratchConfig) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of layers (Jordan et al., 2024), AdamW for others; vectors do not decay."""
    named = [(name, p) for name, p in step.named_parameters() if p.requires_grad]
    matrices = [p for name, p in named if p.dim() == 2 and "layers" in name]
    taken = {id(p) for p in matrices}
    decayed = [p for _, p in named if p.dim() > 1 and id(p) not in taken]
    plain = [p for _, p in named if p.dim() <= 1]
    rate, decay = config.learning_rate, config.weight_decay
    adam = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": decay}, {"params": plain, "weight_decay": 0.0}],
        rate,
        betas=(0.9, 0.98),
    )
    return [adam, torch.optim.Muon(matrices, rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw")]


class _FixedRounds(InteractiveStep):
    """An interactive step with the largest number of rounds, so that validations can be compared."""

    def rounds(self, generator: torch.Generator, device: torch.device) -> int:
        return self.prompts.max_rounds
