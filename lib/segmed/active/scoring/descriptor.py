"""Descriptors of images: a vector from the model's features, or from grey values where there are none."""

from __future__ import annotations

import cv2
import numpy as np
from torch import Tensor

from segmed.sam.embedding import Embedding

_SIDE = 8
_BINS = 64


def pooled_features(embedding: Embedding, features: Tensor | None = None) -> np.ndarray:
    """Mean and maximum of each channel over the part of the model input that holds the slice.

    Args:
        embedding: Embedding of one slice.
        features: Feature maps (1, C, H, W) in place of those of the embedding, or None.

    Returns:
        Descriptor (2 C,) float32, 512 values for SAM's 256 channels.
    """
    features = (embedding.features if features is None else features)[0].detach().float()
    shares = [part / embedding.frame.size for part in embedding.frame.content]
    rows, columns = (max(1, round(n * share)) for n, share in zip(features.shape[1:], shares, strict=True))
    inside = features[:, :rows, :columns].flatten(1)
    return np.concatenate([inside.mean(1).cpu().numpy(), inside.amax(1).cpu().numpy()]).astype(np.float32)


def picture_features(image: np.ndarray) -> np.ndarray:
    """Grey values and edges on a coarse grid, and a histogram.

    Args:
        image: Slice (H, W) or (H, W, 3), uint8.

    Returns:
        Descriptor (256,) float32 in [0, 1]: means, standard deviations and edge strengths of 8 × 8 fields,
        and the root of the shares of 64 grey values.
    """
    grey = image.astype(np.float32) / 255
    grey = grey.mean(2) if grey.ndim == 3 else grey
    gy, gx = np.gradient(grey) if min(grey.shape) > 1 else (np.zeros_like(grey), np.zeros_like(grey))
    mean, square, edge = (_coarse(part) for part in (grey, grey**2, np.hypot(gx, gy)))
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    histogram = np.histogram(grey, _BINS, (0, 1))[0] / grey.size
    parts = [mean, deviation, edge]
    return np.concatenate([*(p.ravel() for p in parts), np.sqrt(histogram)]).astype(np.float32)


def _coarse(values: np.ndarray) -> np.ndarray:
    return np.asarray(cv2.resize(values.astype(np.float32), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA))
