"""How far a model follows a label: it is asked for each structure by the box that a careful user would draw."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np

from segmed.active.submission import object_slices
from segmed.evaluation.metrics import Overlap
from segmed.imaging.masks import slice_box
from segmed.imaging.picture import Picture
from segmed.imaging.prompts import Box, Prompt
from segmed.methods.predictor import Predictor

_STRUCTURES = 8


def followed(
    predictor: Predictor,
    picture: Picture,
    labels: np.ndarray,
    slices: int = 3,
    turn: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> float:
    """Mean Dice over the structures of a label map.

    Args:
        predictor: of the model version that bears witness.
        picture: the image.
        labels: (I, J, K) whole numbers on its grid.
        slices: of each structure that are asked for, at most; of the structures, the eight largest count.
        turn: held while a slice is looked at, such as to let users go first.

    Returns:
        NaN where nothing is labelled, or nothing wider than a line.

    Raises:
        ValueError: shapes differ.
    """
    if labels.shape != picture.shape:
        raise ValueError(f"The label map {labels.shape} does not lie on the image {picture.shape}. Export it again.")
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
                found = predictor.segment_slices(picture, Prompt(Box((x0, x1), (y0, y1), (k, k))))[k]
            overlap += Overlap.of(found, mask[:, :, k].T)
        if overlap.tp + overlap.fn:
            dice.append(overlap.dice())
    return float(np.mean(dice)) if dice else math.nan
