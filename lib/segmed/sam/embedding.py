"""Image embeddings: what an encoder computes once per slice, enough to decode any prompt on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from segmed.sam.frame import Frame


@dataclass(frozen=True)
class Embedding:
    """Prompt-independent features of B slices of one size.

    Attributes:
        features: The features of the last level, (B, C, h, w).
        frame: The placement of the slices in the model input.
        extras: Further tensors (B, …) that the decoder of a method needs.
    """

    features: Tensor
    frame: Frame
    extras: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        return self.features.shape[0]

    @property
    def nbytes(self) -> int:
        """Memory of all tensors in bytes."""
        return sum(t.numel() * t.element_size() for t in (self.features, *self.extras))

    def to(self, device: torch.device | str) -> Embedding:
        """The same embedding on another device."""
        return Embedding(self.features.to(device), self.frame, tuple(t.to(device) for t in self.extras))

    def split(self) -> list[Embedding]:
        """Split into one embedding per slice, each with memory of its own so that it can be cached alone."""
        return [
            Embedding(
                self.features[b : b + 1].clone(), self.frame, tuple(t[b : b + 1].clone() for t in self.extras)
            )
            for b in range(len(self))
        ]

    @staticmethod
    def join(parts: Sequence[Embedding]) -> Embedding:
        """Concatenate embeddings along the slices, the inverse of `split`; all parts share one frame."""
        if len(parts) == 1:
            return parts[0]
        return Embedding(
            torch.cat([p.features for p in parts]),
            parts[0].frame,
            tuple(torch.cat(group) for group in zip(*(p.extras for p in parts), strict=True)),
        )
