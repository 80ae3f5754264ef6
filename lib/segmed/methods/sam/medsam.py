"""MedSAM: SAM with the preparation of slices that the MedSAM weights were trained with.

Source: Ma et al., Segment anything in medical images (Nature Communications, 2024).
"""

from __future__ import annotations

import torch
from torch import Tensor

from segmed.methods.sam.sam import Sam
from segmed.sam.embedding import Embedding
from segmed.sam.frame import Frame


class MedSam(Sam):
    """SAM on slices stretched to the input size, in [0, 1]; probabilities are resampled.

    The published weights were trained with boxes; clicks work through the frozen prompt encoder as an
    extension.
    """

    keep_aspect = False
    choose_best = False

    def fit(self, image: Tensor, frame: Frame) -> Tensor:
        # As published, slices are resized and truncated to 8 bit; grey ones are then scaled to their own
        # range.
        resized = (frame.fit(image, "bicubic").clamp(0, 255) + 1e-3).floor()
        if image.shape[0] == 3:
            return resized / 255
        low, high = resized.amin(), resized.amax()
        return (resized - low) / (high - low).clamp(min=1e-8)

    def encode(self, images: Tensor) -> Embedding:
        return self._encode(images)

    def _restore(self, frame: Frame, low: Tensor, size: tuple[int, int]) -> Tensor:
        return torch.logit(frame.restore(low.float().sigmoid(), size), eps=1e-6)
