"""Fine-tuning of any trainable method on labelled slices by the method's own recipe, step by step."""

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
from segmed.methods.base.trainable import TrainableSegmenter
from segmed.sam.embedding import Embedding
from segmed.training.batches import Augment, BatchReader, Sample, one_ahead, seed_of
from segmed.training.embeddings import FrozenEncoder
from segmed.training.finetune_config import FinetuneConfig
from segmed.training.optimisation import build_optimiser, rate_factor
from segmed.training.processes import Processes
from segmed.training.targets import same_size

_LARGE = 512  # px; encoders with larger inputs need gigabytes for the activations of a backward pass


class LossNotFinite(ValueError):
    """The loss or its gradient is infinite or not a number; the weights are those before the step."""


class _Loss(nn.Module):
    """The loss of a method as a module with one forward call, from embeddings or images."""

    def __init__(self, method: TrainableSegmenter) -> None:
        super().__init__()
        self.method = method

    def forward(self, source: Embedding | Tensor, *targets: Any) -> Tensor:
        if isinstance(source, Embedding):
            return self.method.loss_from(source, *targets)
        return self.method.loss(source, *targets)


class Finetuning:
    """A training that can be resumed at any step; each step is reproducible by its own seed.

    With prompts a method learns one object per slice from a jittered box, otherwise the class map of the
    slice. Masks and prompts are in px of the model input. Processes that train together share each batch.

    Args:
        method: The method, which is changed in place and is in evaluation mode after `run`.
        data: The slices; with prompts, those without an object are left out.
        config: The settings of the training.
        folder: Folder of the embedding cache, or None for a temporary one.
        augment: Random changes of a slice and its labels, which disable the cache, or None.
        facts: Description of what cached embeddings depend on besides the method.

    Raises:
        ValueError: If there is no slice to learn from, or there are more processes than slices in a step.
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
        supported = self.device.type == "cuda" and torch.cuda.is_bf16_supported()
        self.bf16 = supported if self.config.bf16 is None else self.config.bf16

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
        self.optimiser = build_optimiser(method.recipe, groups)
        self.plateau = ReduceLROnPlateau(self.optimiser, factor=0.5, patience=5)
        self.module = self.processes.average(_Loss(method))

        self._temporary = TemporaryDirectory(prefix="segmed-") if folder is None else None
        cache_folder = Path(self._temporary.name) if self._temporary else Path(folder or "")
        own_loss = type(method).loss is not TrainableSegmenter.loss
        can_cache = augment is None and not own_loss and not method.input_varies
        with self.processes.first_on_each_machine() as prepare:
            self.encoder = FrozenEncoder(
                method,
                method.prepare(self.data[0].image)[0],
                cache_folder / "embeddings.bin",
                len(self.data),
                self.config.cache_bytes if can_cache else 0,
                facts,
                prepare,
            )
        self.reader = BatchReader(method, self.data, self.config, self.prompted, self.encoder, augment)

    def run(self, tell: Callable[[int, float], None] | None = None) -> list[float]:
        """Train to the end.

        Args:
            tell: Function called with the step, counted from 1, and its loss.

        Returns:
            The loss of each step.

        Raises:
            LossNotFinite: If a loss is not finite.
            ValueError: If one slice alone needs more memory than there is.
        """
        while self.step < self.steps:
            self.train_epoch(tell)
        self.method.eval()
        return self.losses

    def train_epoch(
        self, tell: Callable[[int, float], None] | None = None, stop: Callable[[], bool] | None = None
    ) -> bool:
        """Train to the end of the epoch or of all steps, with the errors of `run`.

        Args:
            tell: Function called with the step, counted from 1, and its loss.
            stop: Function called after each step that returns whether to stop.

        Returns:
            Whether `stop` returned true in any of the processes.
        """
        self.method.train()
        end = min((self.step // self.per_epoch + 1) * self.per_epoch, self.steps)
        batches = self._batches(self.step, end)
        # On CPUs the loading thread would compete with the threads of the training.
        batches = one_ahead(batches) if self.device.type == "cuda" else batches
        stopped = False
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            for total, samples in batches:
                loss = self._gradients(samples, total)
                loss, stops = self.processes.total(
                    torch.stack([loss, loss.new_tensor(bool(stop and stop()))])
                ).tolist()
                self._update(loss)
                if tell:
                    tell(self.step, loss)
                if stopped := stops > 0:
                    break
        if self.method.recipe.schedule == "plateau" and self.step % self.per_epoch == 0:
            self.plateau.step(float(np.mean(self.losses[-self.per_epoch :])))
        return stopped

    def weights(self) -> dict[str, Tensor]:
        """Copies of the trained weights on the CPU."""
        wanted = {*self.method.trained_names(), *self.method.extra_buffers()}
        return {
            k: v.detach().to("cpu", copy=True) for k, v in self.method.state_dict().items() if k in wanted
        }

    def state(self) -> dict[str, Any]:
        """The state from which `restore` continues."""
        return {
            "step": self.step,
            "losses": torch.tensor(self.losses, dtype=torch.double),
            "weights": self.weights(),
            "optimiser": self.optimiser.state_dict(),
            "plateau": self.plateau.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from the `state` of a training with the same settings."""
        self.step, self.losses = state["step"], state["losses"].tolist()
        self.method.load_state_dict(state["weights"], strict=False)
        self.optimiser.load_state_dict(state["optimiser"])
        self.plateau.load_state_dict(state["plateau"])

    def _batches(self, step: int, end: int) -> Iterator[tuple[int, list[Sample]]]:
        """The batches of the steps from `step` up to `end` (exclusive), pass by pass."""
        while step < end:
            number, start = divmod(step, self.per_pass)
            stop = min(self.per_pass, start + end - step)
            yield from self.reader.batches(number, start, stop)
            step += stop - start

    def _gradients(self, samples: Sequence[Sample], total: int) -> Tensor:
        """Backpropagate this process's part of the loss of a batch of `total` slices, and return that part.

        If memory runs out in a single process, the micro-batch is halved.
        """
        while True:
            try:
                return self._accumulated(samples, total)
            except (RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error):
                    raise
                if min(self.micro, len(samples)) == 1 or self.processes.world > 1:
                    raise ValueError(
                        f"Memory ran out with {min(self.micro, len(samples))} slices at a time "
                        f"({error!s:.200}). Train with a smaller micro-batch, with gradient checkpointing or "
                        "at a smaller input size."
                    ) from error
            self.micro = math.ceil(min(self.micro, len(samples)) / 2)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _accumulated(self, samples: Sequence[Sample], total: int) -> Tensor:
        """Accumulate the gradients of micro-batches i of n_i slices: the loss is Σ (n_i / total) L_i.

        `DistributedDataParallel` averages gradients over the processes, hence the factor of their number.
        """
        world = self.processes.world
        # Every process needs the same number of passes, because they wait for each other in each.
        passes = min(math.ceil(math.ceil(total / world) / self.micro), total // world)
        self.optimiser.zero_grad(set_to_none=True)
        value = torch.zeros((), device=self.device)
        for n, chosen in enumerate(np.array_split(np.arange(len(samples)), passes)):
            part = [samples[i] for i in chosen]
            # The seed of dropout and other random draws of the method.
            torch.manual_seed(seed_of(self.config.seed, self.step, self.processes.rank, n))
            alone = isinstance(self.module, _Loss) or n == passes - 1
            with nullcontext() if alone else self.module.no_sync():  # type: ignore[operator]
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                    loss = self.module(*self._targets(part), self.step / self.steps)
                loss = loss.float() * (len(part) / total)
                (loss * world).backward()
            value += loss.detach()
        return value

    def _targets(
        self, samples: Sequence[Sample]
    ) -> tuple[Embedding | Tensor, list[list[SlicePrompt]] | None, Tensor]:
        """The arguments of the loss: embedding or images, prompts, and truth (B, 1, S, S)."""
        truth = same_size([s.truth for s in samples]).to(self.device)
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


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "not enough memory" in str(error)
