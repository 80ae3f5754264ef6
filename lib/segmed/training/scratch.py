"""Training a promptable model from scratch on drawn pictures: resumable, replayable, on one or many devices."""

from __future__ import annotations

import copy
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from segmed.training.interactive import InteractiveStep
from segmed.training.prompts import PromptConfig
from segmed.training.stream import PromptedBatch

Draw = Callable[[int], PromptedBatch]
_VALIDATION_SEED = 10**9  # far from every step of training
_MAX_STEPS = 10**8


@dataclass(frozen=True)
class ScratchConfig:
    """How to train.

    Attributes:
        steps: optimiser steps.
        seed: of everything that is drawn.
        learning_rate: of both optimisers; rises linearly over `warmup` steps, stays, and falls linearly to zero in the
            last `decay` of all steps. A run may be given more or fewer steps when it goes on, as long as its rate has
            not begun to fall.
        warmup: steps.
        decay: share of the steps.
        weight_decay: of weights with two or more axes.
        clip: largest norm of the gradient.
        ema: decay of the running average of weights, which is what is validated and kept.
        validate_every: steps; also how often a checkpoint is written.
        validation_batches: batches of the validation.
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
            raise ValueError(f"steps is {self.steps}; train for 1 to {_MAX_STEPS - 1} steps.")
        if self.learning_rate <= 0 or self.clip <= 0 or not 0 <= self.ema < 1 or not 0 <= self.decay <= 1:
            raise ValueError(
                f"learning_rate {self.learning_rate} and clip {self.clip} must be above 0, ema {self.ema} in [0, 1), "
                f"decay {self.decay} in [0, 1]."
            )
        if self.validate_every < 1 or self.validation_batches < 1:
            raise ValueError("validate_every and validation_batches must be at least 1.")

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        return self.learning_rate * min(1.0, (self.steps - step) / max(1.0, self.decay * self.steps))


class ScratchTraining:
    """One run in a folder: `checkpoint.pt` to go on from, `log.jsonl` of validations.

    Under torchrun each process draws its share of the steps' pictures and gradients are averaged.

    Args:
        model: fresh SamModel; weights are replaced when the folder holds a checkpoint.
        config: how to train.
        draw: the batch of a seed, on the device, for training.
        draw_held_out: the same for validation, half of it boxed and half of it clicked or so.
        folder: of the run.
        device: such as `cpu` or `cuda:0`.
        prompts: how prompts are drawn.
        facts: what else a checkpoint must agree on, such as the settings behind `draw`.

    Raises:
        ValueError: the folder's checkpoint belongs to another configuration or is damaged.
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
        # heads that a round does not use get no gradient in that step
        self.forward = DistributedDataParallel(inner, find_unused_parameters=True) if self.world > 1 else inner

    def run(self, tell: Callable[[int, float], None] | None = None, until: int | None = None) -> None:
        """Train to the end, or `until` a step; a checkpoint is left at each validation and at the stop.

        Args:
            tell: called with the step and its loss.
            until: stop before this step.
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
        # a short memory at first, or the average would keep the random start
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for kept, fresh in zip(self.average.parameters(), self.model.parameters(), strict=True):
                kept.lerp_(fresh.detach(), 1 - decay)
        return float(loss.detach())

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean Dice of the averaged model on held-out pictures: after a box, after a click, after five clicks."""
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
        part = self.folder / "checkpoint.part"
        torch.save(state, part)
        part.replace(self.folder / "checkpoint.pt")
        lines = "\n".join(json.dumps(entry) for entry in self.log)
        (self.folder / "log.jsonl").write_text(lines + "\n", encoding="utf-8")

    def _resume(self) -> None:
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
        except Exception as error:
            raise ValueError(f"{path} is damaged ({type(error).__name__}). Remove it to start anew.") from error
        if state.get("facts") != self._facts():
            raise ValueError(
                f"{path} was made with other settings. Use the same settings to go on, or another folder to start anew."
            )
        self.inner.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        for optimiser, kept in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        self.step, self.log = state["step"], state["log"]


def _optimisers(step: nn.Module, config: ScratchConfig) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of layers (Jordan et al., 2024), AdamW for all else; vectors do not decay."""
    named = [(name, p) for name, p in step.named_parameters() if p.requires_grad]
    matrices = [p for name, p in named if p.dim() == 2 and "layers" in name]
    taken = {id(p) for p in matrices}
    decayed = [p for _, p in named if p.dim() > 1 and id(p) not in taken]
    plain = [p for _, p in named if p.dim() <= 1]
    rate, decay = config.learning_rate, config.weight_decay
    adam = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": decay}, {"params": plain, "weight_decay": 0.0}], rate, betas=(0.9, 0.98)
    )
    return [adam, torch.optim.Muon(matrices, rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw")]


class _FixedRounds(InteractiveStep):
    """Always plays the most rounds, so that validations compare."""

    def rounds(self, generator: torch.Generator, device: torch.device) -> int:
        return self.prompts.max_rounds
