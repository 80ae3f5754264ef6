"""Model agreement: how well a model reproduces a label when prompted with the box of each structure."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np

from segmed.active.review.submission import object_slices
from segmed.evaluation.metrics import Overlap
from segmed.imaging.labels.masks import slice_box
from segmed.imaging.picture import Picture
from segmed.imaging.prompts import Box, Prompt
from segmed.inference.predictor import Predictor

_STRUCTURES = 8


def followed(
    predictor: Predictor,
    picture: Picture,
    labels: np.ndarray,
    slices: int = 3,
    turn: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> float:
    """Dice of a model and a label map, mean over structures.

    Args:
        predictor: Predictor of the model version.
        picture: Image of the label map.
        labels: Label map (I, J, K) of integers on the image's grid.
        slices: Largest number of slices per structure to segment; the eight largest structures count.
        turn: Context manager that is held while a slice is segmented, for instance to let users go first.

    Returns:
        Mean Dice; NaN where nothing is labelled, or nothing wider than a line.

    Raises:
        ValueError: The shapes differ.
    """
    if labels.shape != picture.shape:
        raise ValueError(
            f"The label map {labels.shape} does not lie on the image {picture.shape}. Export it again."
        )
    counts = np.bincount(labels.ravel())
    counts[0] = 0
    dice = []
    for value in np.argsort(-counts, kind="stable")[:_STRUCTURES]:
        if not counts[value]:
            break
        mask = labels == value
        overlap = Overlap(0, 0, 0, 0)
        for k in object_slices(mask, slices):
            x0, y0, x1, y1 = (int(v) for v in slice_box(mask[:, :, k].T))
            if x0 == x1 or y0 == y1:
                continue
            with turn():
                segmented = predictor.segment_slices(picture, Prompt(Box((x0, x1), (y0, y1), (k, k))))[k]
            overlap += Overlap.of(segmented, mask[:, :, k].T)
        if overlap.tp + overlap.fn:
            dice.append(overlap.dice())
    return float(np.mean(dice)) if dice else math.nan
