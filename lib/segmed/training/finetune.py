"""Fine-tuning of any trainable method on labelled slices, by the method's own recipe."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from segmed.data.slices import LabelledSlice, SliceDataset
from segmed.imaging.prompts import SlicePrompt
from segmed.imaging.store import ByteBoundedStore
from segmed.methods.trainable import Recipe, TrainableSegmenter
from segmed.sam.embedding import Embedding
from segmed.sam.frame import Frame
from segmed.training.prompts import PromptConfig, jittered_boxes

_MAX_STEPS = 10**6
_POLY_POWER = 0.9
_LAST_OF_LINEAR = 1e-3


@dataclass(frozen=True)
class FinetuneConfig:
    """What a recipe leaves open.

    Attributes:
        steps: optimiser steps; None for the epochs.
        epochs: passes over the data; None for those of the recipe.
        batch: slices per step.
        seed: of the order of slices, of prompts and of what the method draws itself.
        clip: largest norm of the gradient.
        bf16: multiply matrices in bfloat16 where autocast does; the weights stay float32.
        prompted: whether objects are shown by boxes; None prompts all methods but those whose loss is `dice_ce`, which
            learn class maps of whole slices.
        one_label_share: chance that a slice with several labels is prompted for one of them and not for all together.
        cache_bytes: embeddings kept, in float16, where training leaves the encoder as it is; 0 encodes always anew.
        prompts: how careless boxes are.
    """

    steps: int | None = None
    epochs: int | None = None
    batch: int = 8
    seed: int = 0
    clip: float = 1.0
    bf16: bool = False
    prompted: bool | None = None
    one_label_share: float = 0.5
    cache_bytes: int = 2 * 2**30
    prompts: PromptConfig = field(default_factory=PromptConfig)

    def __post_init__(self) -> None:
        for name in ("steps", "epochs", "batch"):
            value = getattr(self, name)
            if value is not None and not 1 <= value < _MAX_STEPS:
                raise ValueError(f"{name} is {value}; give 1 to {_MAX_STEPS - 1}.")
        if self.clip <= 0 or not 0 <= self.one_label_share <= 1:
            raise ValueError(
                f"clip {self.clip} must be positive and one_label_share {self.one_label_share} a share in [0, 1]."
            )


class Finetuning:
    """One run. Each step draws from a seed of its own, so that it is the same whenever it is made.

    With prompts a method learns one object per slice, shown by a careless box, else the class map of the slice. Truth
    and prompts are in pixels of the model input.

    Args:
        method: is changed in place, and is in evaluation mode afterwards.
        data: slices; those without object are left out where they are prompted.
        config: how to train.

    Raises:
        ValueError: there is no slice to learn from.
    """

    def __init__(self, method: TrainableSegmenter, data: SliceDataset, config: FinetuneConfig | None = None) -> None:
        self.method, self.config = method, config or FinetuneConfig()
        prompted = self.config.prompted
        self.prompted = method.recipe.loss != "dice_ce" if prompted is None else prompted
        self.data = data.with_object() if self.prompted else data
        if not len(self.data):
            raise ValueError("There is no slice with a labelled object to learn from. Add labelled images.")
        self.device = next(method.parameters()).device
        method.prepare_training()
        method.train()
        rates = {p: method.recipe.rate(name) for name, p in method.named_parameters() if p.requires_grad}
        self.parameters = list(rates)
        groups = [{"params": [p for p in rates if rates[p] == r], "lr": r} for r in sorted(set(rates.values()))]
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[method.recipe.optimiser]
        self.optimiser: torch.optim.Optimizer = kind(groups, weight_decay=method.recipe.weight_decay)
        self.per_epoch = math.ceil(len(self.data) / self.config.batch)
        self.steps = self.config.steps or self.per_epoch * (self.config.epochs or method.recipe.epochs)
        self.embeddings: ByteBoundedStore[Embedding] = ByteBoundedStore(self.config.cache_bytes)
        self.caches = self.config.cache_bytes > 0 and self._encoder_is_frozen()

    def run(self, tell: Callable[[int, float], None] | None = None) -> list[float]:
        """Train to the end.

        Args:
            tell: called with the step, counted from 1, and its loss.

        Returns:
            The loss of each step.

        Raises:
            ValueError: a loss is not finite.
        """
        recipe = self.method.recipe
        plateau = ReduceLROnPlateau(self.optimiser, factor=0.5, patience=5)
        schedule = LambdaLR(self.optimiser, lambda step: rate_factor(recipe, step, self.steps))
        losses: list[float] = []
        self.method.train()
        with torch.random.fork_rng():
            for step in range(self.steps):
                losses.append(self._step(step))
                if recipe.schedule != "plateau":
                    schedule.step()
                elif (step + 1) % self.per_epoch == 0:
                    plateau.step(float(np.mean(losses[-self.per_epoch :])))
                if tell:
                    tell(step + 1, losses[-1])
        self.method.eval()
        return losses

    def _step(self, step: int) -> float:
        seed = self.config.seed * _MAX_STEPS + step
        torch.manual_seed(seed)  # dropout and other draws of the method
        generator = Generator().manual_seed(seed)
        places = self._order(step // self.per_epoch)[step % self.per_epoch :: self.per_epoch]
        self.optimiser.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bf16):
            loss = self._loss(places, generator, step / self.steps)
        if not torch.isfinite(loss):
            raise ValueError(
                f"The loss of step {step + 1} is {loss.item()}. Train with a lower learning rate or without bf16."
            )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, self.config.clip)
        self.optimiser.step()
        return loss.item()

    def _order(self, epoch: int) -> list[int]:
        seed = self.config.seed * _MAX_STEPS + epoch
        return [int(n) for n in np.random.default_rng(seed).permutation(len(self.data))]

    def _loss(self, places: Sequence[int], generator: Generator, progress: float) -> Tensor:
        samples = [self.data[n] for n in places]
        truth, prompts = self._question(samples, generator)
        if not self.caches:
            return self.method.loss(self._images(samples), prompts, truth, progress)
        size = (truth.shape[-2], truth.shape[-1])
        logits = self.method.decode(self._embedding(places, samples), prompts, size)
        return self.method.recipe.loss_of(logits.masks, truth)

    def _question(
        self, samples: Sequence[LabelledSlice], generator: Generator
    ) -> tuple[Tensor, list[list[SlicePrompt]] | None]:
        """Truth (B, 1, S, S) and prompts in pixels of the model input."""
        maps = []
        for sample in samples:
            height, width = sample.labels.shape
            frame = Frame(height, width, int(self.method.input_size or 0), self.method.keep_aspect)
            wanted = self._one_object(sample.labels, generator) if self.prompted else sample.labels
            maps.append(fit_labels(wanted, frame))
        truth = torch.stack(maps)
        if not self.prompted:
            return truth[:, None].long().to(self.device), None
        limits = self.config.prompts
        boxes = jittered_boxes(truth > 0, generator, limits.box_inward, limits.box_outward)
        prompts = [[SlicePrompt(box=(x0, y0, x1, y1))] for x0, y0, x1, y1 in boxes.tolist()]
        return truth[:, None].float().to(self.device), prompts

    def _images(self, samples: Sequence[LabelledSlice]) -> Tensor:
        return torch.stack([self.method.prepare(s.image)[0] for s in samples]).to(self.device)

    def _embedding(self, places: Sequence[int], samples: Sequence[LabelledSlice]) -> Embedding:
        """From the cache where they are there."""
        found = {n: self.embeddings.get(n) for n in places}
        missing = [n for n in places if found[n] is None]
        if missing:
            with torch.no_grad():
                fresh = self.method.encode(self._images([samples[places.index(n)] for n in missing]))
            for n, part in zip(missing, fresh.to("cpu").split(), strict=True):
                found[n] = half = _cast(part, torch.float32, torch.float16)
                self.embeddings.put(n, half, half.nbytes)
        parts = [part.to(self.device) for part in found.values() if part is not None]
        # autocast on CPUs joins no float16
        return Embedding.join([_cast(part, torch.float16, torch.float32) for part in parts])

    def _one_object(self, labels: np.ndarray, generator: Generator) -> np.ndarray:
        present = [int(v) for v in np.unique(labels) if v]
        draw = torch.rand(2, generator=generator).tolist()
        if len(present) > 1 and draw[0] < self.config.one_label_share:
            return labels == present[int(draw[1] * len(present))]
        return labels > 0

    def _encoder_is_frozen(self) -> bool:
        """Whether embeddings stay the same while the method trains, and its loss is a function of them."""
        if type(self.method).loss is not TrainableSegmenter.loss:
            return False
        pixels, _ = self.method.prepare(self.data[0].image)
        embedding = self.method.encode(pixels[None].to(self.device))
        return not any(t.requires_grad for t in (embedding.features, *embedding.extras))


def rate_factor(recipe: Recipe, step: int, steps: int) -> float:
    """What the learning rates are multiplied with in a step; `plateau` is not a function of the step.

    The warm-up takes at most a tenth of the steps, so that short runs have more than it.
    """
    if recipe.schedule == "linear":
        return 1 - (1 - _LAST_OF_LINEAR) * step / max(steps, 1)
    if recipe.schedule != "poly":
        return 1.0
    warmup = min(recipe.warmup, steps // 10)
    if step < warmup:
        return (step + 1) / warmup
    return (1 - (step - warmup) / max(steps, 1)) ** _POLY_POWER


def fit_labels(labels: np.ndarray, frame: Frame) -> Tensor:
    """A label map (H, W) in the square that the model sees, by nearest neighbours: (S, S) uint8.

    An object that all neighbours miss keeps one pixel.
    """
    rows, columns = frame.content
    whole = torch.from_numpy(np.ascontiguousarray(labels, np.uint8))
    small = F.interpolate(whole[None, None], (rows, columns), mode="nearest-exact")[0, 0]
    if not small.any() and labels.any():
        y, x = np.argwhere(labels)[0]
        column, row = frame.to_model(np.array([x + 0.5, y + 0.5])).astype(int)
        small[row, column] = int(labels[y, x])
    return F.pad(small, (0, frame.size - columns, 0, frame.size - rows))


def _cast(embedding: Embedding, before: torch.dtype, after: torch.dtype) -> Embedding:
    """Tensors of one format in another; those of further formats, such as 8-bit images, stay."""
    features, *extras = (t.to(after) if t.dtype == before else t for t in (embedding.features, *embedding.extras))
    return Embedding(features, embedding.frame, tuple(extras))
