"""Boxes that a detector finds on slices, joined to regions of a volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from segmed.methods.detector.boxes import Boxes

_SAME = 0.3  # IoU of boxes on neighbouring slices that belong to one object


@dataclass
class Region:
    """An object over several slices.

    Attributes:
        label: Class, counted from 1.
        low: Voxel indices (3,) of the first corner.
        high: Voxel indices (3,) of the last corner, inclusive.
        score: Score of its most certain box.
        last: Corners of its box on its last slice.
    """

    label: int
    low: np.ndarray
    high: np.ndarray
    score: float
    last: torch.Tensor


def link(found: Sequence[Boxes]) -> list[Region]:
    """Join overlapping boxes of neighbouring slices to regions, the most certain region first.

    Args:
        found: Boxes of slice 0, 1, …
    """
    from torchvision.ops import box_iou  # a second and 100 MB; whoever detects has it already

    done: list[Region] = []
    open_ones: list[Region] = []
    for k, boxes in enumerate(found):
        going: list[Region] = []
        for corners, label, score in zip(
            boxes.corners, boxes.labels.tolist(), boxes.scores.tolist(), strict=True
        ):
            alike = [r for r in open_ones if r.label == label and r not in going]
            overlaps = [float(box_iou(corners[None], r.last[None])) for r in alike]
            low = np.array([*corners[:2].tolist(), k])
            high = np.array([*(corners[2:] - 1).tolist(), k])
            if overlaps and max(overlaps) >= _SAME:
                region = alike[int(np.argmax(overlaps))]
                region.low, region.high = np.minimum(region.low, low), np.maximum(region.high, high)
                region.score, region.last = max(region.score, score), corners
            else:
                region = Region(label, low, high, score, corners)
                done.append(region)
            going.append(region)
        open_ones = going
    return sorted(done, key=lambda region: -region.score)
