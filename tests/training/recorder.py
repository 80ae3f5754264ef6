"""A method of one weight that keeps what a training asks of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from segmed.imaging.prompts import SlicePrompt
from segmed.methods.base.segmenter import Logits
from segmed.methods.base.trainable import Recipe, TrainableSegmenter
from segmed.sam.embedding import Embedding
from torch import Tensor, nn


class Recorder(TrainableSegmenter):
    """Trains one number; keeps what it was asked."""

    name = "recorder"
    input_size = 32

    def __init__(
        self, recipe: Recipe, loss: Callable[[Tensor], Tensor] = lambda weight: weight * 0 + 1
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.recipe, self._loss = recipe, loss
        self.seen: list[tuple[Tensor, Sequence[Sequence[SlicePrompt]] | None, Tensor, float]] = []

    def trained_names(self) -> list[str]:
        return ["weight"]

    def encode(self, images: Tensor) -> Embedding:
        raise NotImplementedError

    def decode(
        self, embedding: Embedding, prompts: Sequence[Sequence[SlicePrompt]] | None, size: tuple[int, int]
    ) -> Logits:
        raise NotImplementedError

    def loss(
        self,
        images: Tensor,
        prompts: Sequence[Sequence[SlicePrompt]] | None,
        truth: Tensor,
        progress: float = 1.0,
    ) -> Tensor:
        self.seen.append((images, prompts, truth, progress))
        return self._loss(self.weight)
