"""Batches of slices with their targets and prompts, read when needed and determined by seeds alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np
from torch import Generator, Tensor

from segmed.data.slices import LabelledSlice, SliceDataset
from segmed.imaging.prompts import SlicePrompt
from segmed.methods.base.segmenter import Segmenter
from segmed.sam.embedding import Embedding
from segmed.sam.frame import Frame
from segmed.training.embeddings import FrozenEncoder
from segmed.training.finetune_config import FinetuneConfig
from segmed.training.order import SliceOrder
from segmed.training.processes import Processes
from segmed.training.targets import class_places, fit_labels, jittered_box, one_object

T = TypeVar("T")
_LARGEST_TRUTH = 512  # px; the side of the largest masks that are compared at the slice's resolution


class Augment(Protocol):
    """A random change of a slice and its labels, which is the same for the same numbers."""

    def __call__(self, sample: LabelledSlice, *seed: int) -> LabelledSlice: ...


@dataclass(frozen=True)
class Sample:
    """A slice in training.

    Attributes:
        number: Number of the slice in the dataset.
        source: Its embedding in half precision if it is cached, else its pixels (3, S, S).
        truth: The mask of an object, or class indices, (S, S) uint8; larger where a method is trained at the
            resolution of the slice.
        prompt: The prompt for the object in px of the model input; None in training of classes.
    """

    number: int
    source: Embedding | Tensor
    truth: Tensor
    prompt: SlicePrompt | None


class BatchReader:
    """The batches of any pass over a dataset; random draws depend only on the seed, the pass and the slice.

    Args:
        method: The method, which prepares slices.
        data: The dataset, not empty.
        config: Batch size, seed, prompts and buffer.
        prompted: Whether the targets are prompted objects rather than classes.
        encoder: The encoder, which may have embeddings on disk.
        augment: Random changes of the slices, or None.

    Raises:
        ValueError: If the method lacks a class of the dataset.
    """

    def __init__(
        self,
        method: Segmenter,
        data: SliceDataset,
        config: FinetuneConfig,
        prompted: bool,
        encoder: FrozenEncoder,
        augment: Augment | None = None,
    ) -> None:
        self.method, self.data, self.config = method, data, config
        self.encoder, self.augment = encoder, augment
        self.processes = Processes.current()
        self.places = None if prompted else class_places(method, data.classes)
        first = data[0]
        self.buffer = max(1, config.buffer_bytes // (first.image.nbytes + first.labels.nbytes))

    def batches(self, epoch: int, start: int, end: int) -> Iterator[tuple[int, list[Sample]]]:
        """The size of each batch from `start` up to `end` (exclusive), and this process's share of it."""
        volumes = [volume for volume, _ in self.data.slices]
        order = SliceOrder.draw(volumes, self.buffer, (self.config.seed, epoch))
        steps = math.ceil(len(volumes) / self.config.batch)
        batches = np.array_split(np.arange(len(volumes)), steps)[start:end]
        shares = [self.processes.share(batch.tolist()) for batch in batches]
        slices = order.read(self._load, [p for share in shares for p in share])
        for batch, share in zip(batches, shares, strict=True):
            yield len(batch), [self._sample(order.places[p], next(slices), epoch) for p in share]

    def _load(self, number: int) -> LabelledSlice:
        """Load a slice into memory of its own: a view would keep its whole volume in memory."""
        sample = self.data[number]
        return replace(sample, image=sample.image.copy(), labels=sample.labels.copy())

    def _sample(self, number: int, sample: LabelledSlice, epoch: int) -> Sample:
        numbers = self.config.seed, epoch, number
        if self.augment:
            changed = self.augment(sample, *numbers)
            # A crop may lose the object; then the slice is used unchanged.
            sample = changed if changed.labels.any() or self.places is not None else sample
        generator, prompt = Generator().manual_seed(seed_of(*numbers)), None
        height, width = sample.labels.shape
        frame = Frame(height, width, int(self.method.input_size or 0), self.method.keep_aspect)
        if self.places is None:
            mask = one_object(sample.labels, generator, self.config.one_label_share)
            truth = fit_labels(mask, frame)
            prompt = jittered_box(truth, generator, self.config.prompts)
            if getattr(self.method, "native_truth", False):
                side = min(max(height, width, frame.size), _LARGEST_TRUTH)
                truth = fit_labels(mask, Frame(height, width, side, self.method.keep_aspect))
        else:
            truth = fit_labels(self.places[sample.labels], frame)
        source = self.encoder.kept(number)
        return Sample(
            number, self.method.prepare(sample.image)[0] if source is None else source, truth, prompt
        )


def seed_of(*numbers: int) -> int:
    """Combine several numbers, such as the seed of a run and a step, into one seed."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def one_ahead(items: Iterator[T]) -> Iterator[T]:
    """Iterate over items, each of which is computed in another thread while the one before is in use."""
    with ThreadPoolExecutor(1, thread_name_prefix="slices") as worker:
        upcoming = worker.submit(next, items, None)
        while (item := upcoming.result()) is not None:
            upcoming = worker.submit(next, items, None)
            yield item
