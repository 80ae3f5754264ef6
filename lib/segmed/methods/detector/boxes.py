"""What detectors find."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Boxes:
    """Boxes of one slice, the most certain first.

    Attributes:
        corners: (N, 4) as x0, y0, x1, y1 in px of the slice; x1 and y1 are the first column and row beyond.
        labels: (N,) class, counted from 1.
        scores: (N,) in [0, 1].
    """

    corners: Tensor
    labels: Tensor
    scores: Tensor

    @classmethod
    def none(cls) -> Boxes:
        """No boxes."""
        return cls(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), torch.zeros(0))

    def __len__(self) -> int:
        return len(self.labels)
