"""Fine-tuning of any trainable method on labelled slices, by the method's own recipe: one step after the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from segmed.data.slices import SliceDataset
from segmed.imaging.prompts import SlicePrompt
from segmed.methods.trainable import Recipe, TrainableSegmenter
from segmed.sam.embedding import Embedding
from segmed.training.batches import Augment, BatchReader, Sample, one_ahead, seed_of
from segmed.training.embeddings import FrozenEncoder
from segmed.training.finetune_config import FinetuneConfig
from segmed.training.processes import Processes

_POLY_POWER = 0.9
_LAST_OF_LINEAR = 1e-3
_LARGE = 512  # px; from here the activations of an encoder that gradients pass through fill gigabytes


class LossNotFinite(ValueError):
    """The loss or its gradient is infinite or not a number; the weights are those before the step."""


class _Loss(nn.Module):
    """A method as the function that is differentiated, of embeddings or of images."""

    def __init__(self, method: TrainableSegmenter) -> None:
        super().__init__()
        self.method = method

    def forward(self, source: Embedding | Tensor, *question: Any) -> Tensor:
        if isinstance(source, Embedding):
            return self.method.loss_from(source, *question)
        return self.method.loss(source, *question)


class Finetuning:
    """A training that goes on from any step. Each step draws from a seed of its own, so that it is always the same.

    With prompts a method learns one object per slice, shown by a careless box, else the class map of the slice. Truth
    and prompts are in pixels of the model input. Processes that train together share each batch.

    Args:
        method: is changed in place, and is in evaluation mode after `run`.
        data: slices; those without object are left out where they are prompted.
        config: how to train.
        folder: where embeddings are kept; None for a temporary one.
        augment: changes a slice and its labels before they are learnt from; nothing is kept on disk then.
        facts: what embeddings kept in the folder depend on beside the method.

    Raises:
        ValueError: there is no slice to learn from, or there are more processes than slices in a step.
    """

    def __init__(
        self,
        method: TrainableSegmenter,
        data: SliceDataset,
        config: FinetuneConfig | None = None,
        folder: Path | None = None,
        augment: Augment | None = None,
        facts: str = "",
    ) -> None:
        self.method, self.config = method, config or FinetuneConfig()
        self.processes = Processes.current()
        self.prompted = self.config.is_prompted(method.recipe)
        self.data = data.with_object() if self.prompted else data
        if not len(self.data):
            raise ValueError("There is no slice with a labelled object to learn from. Add labelled images.")
        self.per_pass = math.ceil(len(self.data) / self.config.batch)
        self.per_epoch = self.per_pass * math.ceil(self.config.epoch_steps / self.per_pass)
        self.processes.check_batches(len(self.data) // self.per_pass)
        self.steps = self.config.steps or self.per_epoch * (self.config.epochs or method.recipe.epochs)
        self.step, self.losses = 0, list[float]()
        self.micro = self.config.micro or self.config.batch
        self.device = next(method.parameters()).device
        can = self.device.type == "cuda" and torch.cuda.is_bf16_supported()
        self.bf16 = can if self.config.bf16 is None else self.config.bf16

        method.prepare_training()
        method.train()
        large = int(method.input_size or 0) >= _LARGE
        if large if self.config.checkpointing is None else self.config.checkpointing:
            method.spare_memory()
        rates = {p: method.recipe.rate(name) for name, p in method.named_parameters() if p.requires_grad}
        self.parameters = list(rates)
        groups = [
            {"params": [p for p in rates if rates[p] == r], "lr": r, "initial_lr": r}
            for r in sorted(set(rates.values()))
        ]
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[method.recipe.optimiser]
        self.optimiser: torch.optim.Optimizer = kind(groups, weight_decay=method.recipe.weight_decay)
        self.plateau = ReduceLROnPlateau(self.optimiser, factor=0.5, patience=5)
        self.module = self.processes.average(_Loss(method))

        self._temporary = TemporaryDirectory(prefix="segmed-") if folder is None else None
        where = Path(self._temporary.name) if self._temporary else Path(folder or "")
        keeps = augment is None and type(method).loss is TrainableSegmenter.loss
        with self.processes.first_on_each_machine() as prepare:
            self.encoder = FrozenEncoder(
                method,
                method.prepare(self.data[0].image)[0],
                where / "embeddings.bin",
                len(self.data),
                self.config.cache_bytes if keeps else 0,
                facts,
                prepare,
            )
        self.reader = BatchReader(method, self.data, self.config, self.prompted, self.encoder, augment)

    def run(self, tell: Callable[[int, float], None] | None = None) -> list[float]:
        """Train to the end.

        Args:
            tell: called with the step, counted from 1, and its loss.

        Returns:
            The loss of each step.

        Raises:
            LossNotFinite: a loss is not finite.
            ValueError: one slice alone needs more memory than there is.
        """
        while self.step < self.steps:
            self.train_epoch(tell)
        self.method.eval()
        return self.losses

    def train_epoch(
        self, tell: Callable[[int, float], None] | None = None, stop: Callable[[], bool] | None = None
    ) -> bool:
        """Train to the end of the epoch, or of all steps. Raises as `run`.

        Args:
            tell: as in `run`.
            stop: asked after each step whether to leave.

        Returns:
            Whether `stop` said so, in any of the processes.
        """
        self.method.train()
        end = min((self.step // self.per_epoch + 1) * self.per_epoch, self.steps)
        batches = self._batches(self.step, end)
        # on CPUs two teams of threads would wait for each other
        batches = one_ahead(batches) if self.device.type == "cuda" else batches
        stopped = False
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            for total, samples in batches:
                loss = self._gradients(samples, total)
                loss, asked = self.processes.total(torch.stack([loss, loss.new_tensor(bool(stop and stop()))])).tolist()
                self._update(loss)
                if tell:
                    tell(self.step, loss)
                if stopped := asked > 0:
                    break
        if self.method.recipe.schedule == "plateau" and self.step % self.per_epoch == 0:
            self.plateau.step(float(np.mean(self.losses[-self.per_epoch :])))
        return stopped

    def weights(self) -> dict[str, Tensor]:
        """Copies of what trains, on the CPU."""
        wanted = {*self.method.trained_names(), *self.method.extra_buffers()}
        return {k: v.detach().to("cpu", copy=True) for k, v in self.method.state_dict().items() if k in wanted}

    def state(self) -> dict[str, Any]:
        """All that `restore` needs to go on from here."""
        return {
            "step": self.step,
            "losses": torch.tensor(self.losses, dtype=torch.double),
            "weights": self.weights(),
            "optimiser": self.optimiser.state_dict(),
            "plateau": self.plateau.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back, or on, to what `state` gave in a training of the same settings."""
        self.step, self.losses = state["step"], state["losses"].tolist()
        self.method.load_state_dict(state["weights"], strict=False)
        self.optimiser.load_state_dict(state["optimiser"])
        self.plateau.load_state_dict(state["plateau"])

    def _batches(self, step: int, end: int) -> Iterator[tuple[int, list[Sample]]]:
        """Batches of the steps from one to another, pass by pass."""
        while step < end:
            number, start = divmod(step, self.per_pass)
            stop = min(self.per_pass, start + end - step)
            yield from self.reader.batches(number, start, stop)
            step += stop - start

    def _gradients(self, samples: Sequence[Sample], total: int) -> Tensor:
        """This process's part of the loss of a batch of `total`; gradients are left in the parameters."""
        while True:
            try:
                return self._accumulated(samples, total)
            except (RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error):
                    raise
                if min(self.micro, len(samples)) == 1 or self.processes.world > 1:
                    raise ValueError(
                        f"Memory ran out with {min(self.micro, len(samples))} slices at a time ({error!s:.200}). Train "
                        "with a smaller micro-batch, with gradient checkpointing or at a smaller input size."
                    ) from error
            self.micro = math.ceil(min(self.micro, len(samples)) / 2)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _accumulated(self, samples: Sequence[Sample], total: int) -> Tensor:
        world = self.processes.world
        # as many passes in each process, because they wait for each other in each
        passes = min(math.ceil(math.ceil(total / world) / self.micro), total // world)
        self.optimiser.zero_grad(set_to_none=True)
        value = torch.zeros((), device=self.device)
        for n, chosen in enumerate(np.array_split(np.arange(len(samples)), passes)):
            part = [samples[i] for i in chosen]
            # dropout and other draws of the method
            torch.manual_seed(seed_of(self.config.seed, self.step, self.processes.rank, n))
            alone = isinstance(self.module, _Loss) or n == passes - 1
            with nullcontext() if alone else self.module.no_sync():  # type: ignore[operator]
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                    loss = self.module(*self._question(part), self.step / self.steps)
                loss = loss.float() * (len(part) / total)
                (loss * world).backward()
            value += loss.detach()
        return value

    def _question(self, samples: Sequence[Sample]) -> tuple[Embedding | Tensor, list[list[SlicePrompt]] | None, Tensor]:
        """Embedding or images, prompts, and truth (B, 1, S, S)."""
        truth = torch.stack([s.truth for s in samples])[:, None].to(self.device)
        parts = [s.source for s in samples]
        source: Embedding | Tensor
        if self.encoder.frozen:
            source = self.encoder.join([s.number for s in samples], parts)
        else:
            source = torch.stack([p for p in parts if isinstance(p, Tensor)]).to(self.device)
        if not self.prompted:
            return source, None, truth.long()
        return source, [[s.prompt] for s in samples if s.prompt], truth.float()

    def _update(self, loss: float) -> None:
        advice = "Train with a lower learning rate or without bf16."
        if not math.isfinite(loss):
            raise LossNotFinite(f"The loss of step {self.step + 1} is {loss}. {advice}")
        norm = float(nn.utils.clip_grad_norm_(self.parameters, self.config.clip))
        if not math.isfinite(norm):
            raise LossNotFinite(f"The gradient of step {self.step + 1} has the norm {norm}. {advice}")
        if self.method.recipe.schedule != "plateau":
            for group in self.optimiser.param_groups:
                group["lr"] = group["initial_lr"] * rate_factor(self.method.recipe, self.step, self.steps)
        self.optimiser.step()
        self.step += 1
        self.losses.append(loss)


def rate_factor(recipe: Recipe, step: int, steps: int) -> float:
    """What the learning rates are multiplied with in a step; `plateau` is not a function of the step.

    The warm-up takes at most a tenth of the steps, so that short runs have more than it.
    """
    if recipe.schedule == "linear":
        return 1 - (1 - _LAST_OF_LINEAR) * step / max(steps, 1)
    if recipe.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * step / max(steps, 1)))
    if recipe.schedule != "poly":
        return 1.0
    warmup = min(recipe.warmup, steps // 10)
    if step < warmup:
        return (step + 1) / warmup
    return (1 - (step - warmup) / max(steps, 1)) ** _POLY_POWER


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "not enough memory" in str(error)
