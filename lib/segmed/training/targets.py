"""Targets of slices in training: masks or classes in the model's input, and box prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from segmed.imaging.prompts import SlicePrompt
from segmed.methods.base.segmenter import Segmenter
from segmed.sam.frame import Frame
from segmed.simulation.prompts import PromptConfig, jittered_boxes


def one_object(labels: np.ndarray, generator: Generator, one_label_share: float) -> np.ndarray:
    """Choose the object (H, W) of a slice: one label, with probability `one_label_share`, or all."""
    present = [int(v) for v in np.unique(labels) if v]
    draw = torch.rand(2, generator=generator).tolist()
    if len(present) > 1 and draw[0] < one_label_share:
        return labels == present[int(draw[1] * len(present))]
    return labels > 0


def jittered_box(truth: Tensor, generator: Generator, config: PromptConfig) -> SlicePrompt:
    """Draw a jittered box around an object (S, S), in px of the model input."""
    boxes = jittered_boxes(truth[None] > 0, generator, config.box_inward, config.box_outward)
    x0, y0, x1, y1 = boxes[0].tolist()
    return SlicePrompt(box=(x0, y0, x1, y1))


def fit_labels(labels: np.ndarray, frame: Frame) -> Tensor:
    """Resample a label map (H, W) into the model input by nearest neighbours: (S, S) uint8.

    An object that would be lost keeps one pixel.
    """
    rows, columns = frame.content
    whole = torch.from_numpy(np.ascontiguousarray(labels, np.uint8))
    small = F.interpolate(whole[None, None], (rows, columns), mode="nearest-exact")[0, 0]
    if not small.any() and labels.any():
        y, x = np.argwhere(labels)[0]
        column, row = frame.to_model(np.array([x + 0.5, y + 0.5])).astype(int)
        small[row, column] = int(labels[y, x])
    return F.pad(small, (0, frame.size - columns, 0, frame.size - rows))


def same_size(masks: Sequence[Tensor]) -> Tensor:
    """Stack masks (S, S) to (B, 1, S, S); smaller ones are enlarged to the largest by nearest neighbours."""
    side = max(len(mask) for mask in masks)
    return torch.cat([F.interpolate(mask[None, None], (side, side), mode="nearest-exact") for mask in masks])


def class_places(method: Segmenter, classes: Mapping[int, str]) -> np.ndarray:
    """The method's class index for each value of the dataset's label maps, (256,) uint8, matched by name.

    For methods without named classes, the order is that of the values.

    Raises:
        ValueError: If the method lacks a class of the dataset.
    """
    places = np.zeros(256, np.uint8)
    names = method.labels or [classes[value] for value in sorted(classes)]
    for value, name in classes.items():
        if name not in names:
            raise ValueError(
                f"The dataset has the label {name!r}, but the classes of the method are {', '.join(names)}. "
                "Build the method with the labels of the dataset, or leave this label out of the dataset."
            )
        places[value] = names.index(name) + 1
    return places
