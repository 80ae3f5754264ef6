"""The training loop of the default model: resumable with identical results, in one or many processes."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from segmed.methods.segmed.losses import step_loss
from segmed.methods.segmed.network import PromptNetwork
from segmed.methods.segmed.prompt_channels import prompt_channels
from segmed.pretraining.checkpoints import damaged, read_state, write_log, write_state
from segmed.pretraining.pool import KINDS, ObjectPool


@dataclass(frozen=True)
class PretrainingConfig:
    """The settings of the training.

    Attributes:
        steps: Optimiser steps. The number may be changed when a run is resumed, as long as its learning rate
            has not begun to fall.
        seed: Seed of all random draws.
        learning_rate: Learning rate of the prompt branch and the decoder; it rises over `warmup` steps, stays
            constant, and falls to zero along a half cosine in the last `decay` of all steps.
        encoder_rate: Ratio of the encoder's learning rate to `learning_rate`; it starts from ImageNet
            weights.
        warmup: Steps of the warm-up.
        decay: Share of the steps with a falling learning rate.
        weight_decay: Weight decay of weights with two or more axes.
        clip: Largest norm of the gradient.
        average: Decay of the running average of weights, which is validated and saved.
        train_early: Whether the image half of the encoder is trained as well.
        validate_every: Steps between validations; a checkpoint is written at each.
    """

    steps: int = 6000
    seed: int = 0
    learning_rate: float = 1.2e-3
    encoder_rate: float = 0.35
    warmup: int = 150
    decay: float = 0.45
    weight_decay: float = 0.02
    clip: float = 1.0
    average: float = 0.998
    train_early: bool = False
    validate_every: int = 250

    def __post_init__(self) -> None:
        if self.steps < 1 or self.validate_every < 1:
            raise ValueError(
                f"steps is {self.steps} and validate_every is {self.validate_every}; both must be at least 1."
            )
        if self.learning_rate <= 0 or self.clip <= 0 or not 0 <= self.average < 1 or not 0 <= self.decay <= 1:
            raise ValueError(
                f"learning_rate is {self.learning_rate} and clip is {self.clip}, which must be above 0; "
                f"average is {self.average}, which must be in [0, 1); "
                f"decay is {self.decay}, which must be in [0, 1]."
            )

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        left = min(1.0, (self.steps - step) / max(1.0, self.decay * self.steps))
        return self.learning_rate * float(0.5 - 0.5 * torch.cos(torch.tensor(left * torch.pi)))


class TrainingStep(nn.Module):
    """One forward pass with its loss, as a module, so that distributed wrappers see a single call."""

    def __init__(self, network: PromptNetwork, train_early: bool) -> None:
        super().__init__()
        self.network, self.train_early = network, train_early

    def forward(
        self, images: Tensor, channels: Tensor, truth: Tensor, lone: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, IoU (B,) and probability (B, S, S) of the chosen masks; see `losses.step_loss`."""
        with torch.set_grad_enabled(self.train_early and torch.is_grad_enabled()):
            features = self.network.features(images)
        logits, quality = self.network(features, images, channels)
        loss, iou, chosen = step_loss(logits.float(), quality.float(), truth, lone)
        rows = torch.arange(len(images), device=images.device)
        return loss, iou, logits.detach()[rows, chosen].float().sigmoid()


class Pretraining:
    """A run in a folder with `checkpoint.pt`, one `pool-N.pt` per process, and `log.jsonl`.

    Args:
        network: The network with ImageNet weights, which are replaced if the folder holds a checkpoint.
        config: The settings of the training.
        pool: The objects of this process.
        validation: Functions that open objects for validation, by name; training never uses them.
        folder: Folder of the run.
        device: The device, such as `cpu` or `cuda:0`.
        facts: Further facts that a checkpoint must agree with, such as the settings behind `pool`.

    Raises:
        ValueError: If the checkpoint in the folder belongs to another configuration or is damaged.
    """

    def __init__(
        self,
        network: PromptNetwork,
        config: PretrainingConfig,
        pool: ObjectPool,
        validation: Mapping[str, Callable[[], ObjectPool]],
        folder: Path,
        device: str = "cpu",
        facts: str = "",
    ) -> None:
        self.config, self.pool, self.validation = config, pool, validation
        self.folder, self.device, self.facts = folder, device, facts
        self.rank, self.world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        torch.manual_seed(config.seed)
        self.network = network.to(device).to(memory_format=torch.channels_last)
        if not config.train_early:
            for parameter in network.encoder.early_parameters():
                parameter.requires_grad_(False)
        self.average = copy.deepcopy(self.network).requires_grad_(False).eval()
        self.optimiser = _optimiser(self.network, config)
        self.step = 0
        self.log: list[dict[str, float]] = []
        folder.mkdir(parents=True, exist_ok=True)
        self._resume()
        inner = TrainingStep(self.network, config.train_early)
        self.forward = DistributedDataParallel(inner) if self.world > 1 else inner

    def run(self, tell: Callable[[int, float, float], None] | None = None, until: int | None = None) -> None:
        """Train to the end, or `until` a step; a checkpoint is written at each validation and at the end.

        Args:
            tell: Function called with the step, its loss and the mean IoU of its masks.
            until: Step before which to stop, or None for the last one.
        """
        last = min(self.config.steps, until or self.config.steps)
        while self.step < last:
            loss, iou = self._train_step()
            self.step += 1
            if tell:
                tell(self.step, loss, iou)
            if self.step % self.config.validate_every == 0 or self.step == self.config.steps:
                if self.rank == 0:
                    self.log.append(
                        {"step": self.step, "loss": loss, "seconds": time.time(), **self.validate()}
                    )
                self._save()
        if self.step % self.config.validate_every and self.step != self.config.steps:
            self._save()

    def _train_step(self) -> tuple[float, float]:
        self.pool.refill()
        images, truth, channels, lone = self._inputs(self.pool)
        rate = self.config.rate(self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["share"]
        self.optimiser.zero_grad(set_to_none=True)
        with self._autocast():
            loss, iou, probability = self.forward(images, channels, truth, lone)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip)
        self.optimiser.step()
        # The average forgets faster at first; otherwise it would keep the initial weights.
        decay = min(self.config.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for kept, fresh in zip(self.average.parameters(), self.network.parameters(), strict=True):
                kept.lerp_(fresh.detach(), 1 - decay)
        self.pool.correct(probability.cpu().numpy())
        return float(loss.detach()), float(iou.mean())

    @torch.no_grad()
    def validate(self, rounds: int = 4) -> dict[str, float]:
        """Mean Dice of the averaged weights on validation objects, by set, kind of prompt and round."""
        out: dict[str, float] = {}
        step = TrainingStep(self.average, False)
        for name, make in self.validation.items():
            pool = make()
            dice: dict[str, list[float]] = {kind: [] for kind in (*KINDS, "click + 3")}
            for n in range(rounds):
                images, truth, channels, lone = self._inputs(pool)
                with self._autocast():
                    _, iou, probability = step(images, channels, truth, lone)
                for opened, value in zip(pool.opened, (2 * iou / (1 + iou)).tolist(), strict=True):
                    if n == 0 and (opened.truth > 0.5).any():
                        dice[opened.kind].append(value)
                    elif n == 3 and opened.kind == "click":
                        dice["click + 3"].append(value)
                pool.correct_all(probability.cpu().numpy())
            out |= {f"{name} {kind}": sum(v) / len(v) for kind, v in dice.items() if v}
        return out

    def _inputs(self, pool: ObjectPool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        images, truth, valid, prompts, lone = pool.tensors()
        with torch.no_grad():
            channels = prompt_channels(images, valid, prompts)
        images, channels = (
            t.to(self.device).contiguous(memory_format=torch.channels_last) for t in (images, channels)
        )
        return images, truth.to(self.device), channels, lone.to(self.device)

    def _autocast(self) -> torch.autocast:
        """Half precision on GPUs only; CPUs without bf16 instructions are slower with it."""
        kind = self.device.split(":")[0]
        return torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda")

    def _facts(self) -> str:
        return repr((replace(self.config, steps=1, validate_every=1), self.world, self.facts))

    def _save(self) -> None:
        write_state(self.pool.state(), self.folder / f"pool-{self.rank}.pt")
        if self.rank == 0:
            state = {
                "facts": self._facts(),
                "step": self.step,
                "log": self.log,
                "network": self.network.state_dict(),
                "average": self.average.state_dict(),
                "optimiser": self.optimiser.state_dict(),
            }
            write_state(state, self.folder / "checkpoint.pt")
            write_log(self.log, self.folder)

    def _resume(self) -> None:
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return
        state = read_state(path, self._facts(), self.device)
        objects = self.folder / f"pool-{self.rank}.pt"
        try:
            # This class wrote the file; the objects in the pool are not plain tensors.
            pool = torch.load(objects, weights_only=False)
        except Exception as error:
            raise damaged(objects, error) from error
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.pool.restore(pool)
        self.step, self.log = state["step"], state["log"]


def _optimiser(network: PromptNetwork, config: PretrainingConfig) -> torch.optim.Optimizer:
    """AdamW with a smaller learning rate for the encoder and without weight decay of biases and norms."""
    groups = []
    for encoder in (True, False):
        for matrices in (True, False):
            chosen = [
                p
                for name, p in network.named_parameters()
                if p.requires_grad and name.startswith("encoder") == encoder and (p.dim() > 1) == matrices
            ]
            share = config.encoder_rate if encoder else 1.0
            decay = config.weight_decay if matrices else 0.0
            groups.append({"params": chosen, "weight_decay": decay, "share": share})
    return torch.optim.AdamW(groups, config.learning_rate, betas=(0.9, 0.99))
