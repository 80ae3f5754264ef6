"""Overlap of boolean masks with an explicit policy for empty ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

EmptyPolicy = Literal["one", "skip", "zero"]


@dataclass(frozen=True)
class Overlap:
    """Pixel counts of a prediction against the truth.

    Attributes:
        tp: Pixels in both masks.
        fp: Pixels in the prediction only.
        fn: Pixels in the truth only.
        tn: Pixels in neither mask.
    """

    tp: int
    fp: int
    fn: int
    tn: int

    @classmethod
    def of(cls, prediction: np.ndarray, truth: np.ndarray) -> Overlap:
        """Count the pixels of boolean arrays of one shape.

        Raises:
            ValueError: If the shapes differ.
        """
        if prediction.shape != truth.shape:
            raise ValueError(f"Masks of shapes {prediction.shape} and {truth.shape} cannot be compared.")
        prediction, truth = prediction.astype(bool), truth.astype(bool)
        tp = int((prediction & truth).sum())
        fp, fn = int(prediction.sum()) - tp, int(truth.sum()) - tp
        return cls(tp, fp, fn, truth.size - tp - fp - fn)

    def __add__(self, other: Overlap) -> Overlap:
        return Overlap(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn)

    def dice(self, empty: EmptyPolicy = "skip") -> float:
        """2TP/(2TP+FP+FN), which equals F1; `empty` is the policy for two empty masks (`skip` gives NaN)."""
        return self._ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn, empty)

    def iou(self, empty: EmptyPolicy = "skip") -> float:
        """TP/(TP+FP+FN); `empty` is the policy for two empty masks."""
        return self._ratio(self.tp, self.tp + self.fp + self.fn, empty)

    @property
    def accuracy(self) -> float:
        """(TP+TN)/all."""
        return (self.tp + self.tn) / max(self.tp + self.fp + self.fn + self.tn, 1)

    @staticmethod
    def _ratio(part: int, whole: int, empty: EmptyPolicy) -> float:
        if whole:
            return part / whole
        return {"one": 1.0, "zero": 0.0, "skip": float("nan")}[empty]
