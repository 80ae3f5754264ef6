"""Automatic masks of all objects on a slice: masks of a grid of clicks, filtered by quality and overlap.

Source: Kirillov et al., Segment Anything (ICCV 2023), automatic mask generation on the whole image (no
crops).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import batched_nms, masks_to_boxes

from segmed.imaging.picture import Picture
from segmed.imaging.prompts import SlicePrompt
from segmed.inference.predictor import Predictor, is_blank


@dataclass(frozen=True)
class AutomaticMasksConfig:
    """The thresholds for proposing masks. The defaults are those published with SAM.

    Attributes:
        points_per_side: Points per side of the grid of clicks.
        pred_iou: Predicted IoU that a mask must exceed.
        stability: Stability that a mask must exceed: the IoU of the masks at the threshold moved up and down.
        offset: Distance in logits by which the threshold moves up and down.
        overlap: IoU of boxes above which the worse of two masks is dropped.
        batch: Number of points decoded together, in one turn on the device.
    """

    points_per_side: int = 32
    pred_iou: float = 0.88
    stability: float = 0.95
    offset: float = 1.0
    overlap: float = 0.7
    batch: int = 32

    def __post_init__(self) -> None:
        if self.points_per_side < 1 or self.batch < 1:
            raise ValueError(
                f"points_per_side is {self.points_per_side} and batch is {self.batch}; both must be at least "
                "1. Take 32 for each."
            )
        if not self.offset > 0 or not 0 <= self.overlap <= 1:
            raise ValueError(
                f"offset is {self.offset}, which must be above 0, and overlap is {self.overlap}, which must "
                "be from 0 to 1. Take 1 and 0.7."
            )


# `sam2`: the values of SAM2's own generator. `relaxed`: for images unlike the training data and for small
# models, whose masks have soft edges; `segmed` needs it. `all`: only near duplicates are dropped.
PRESETS: Mapping[str, AutomaticMasksConfig] = MappingProxyType(
    {
        "published": AutomaticMasksConfig(),
        "sam2": AutomaticMasksConfig(pred_iou=0.8),
        "relaxed": AutomaticMasksConfig(pred_iou=0.5, stability=0.2),
        "all": AutomaticMasksConfig(pred_iou=-math.inf, stability=-math.inf),
    }
)


@dataclass(frozen=True)
class ProposedMask:
    """A proposed mask of one object.

    Attributes:
        mask: The boolean mask, (H, W).
        score: Predicted IoU, or the stability if the method predicts none.
        stability: IoU of the masks at the threshold moved up and down.
        point: The click (x, y), in px of the slice, that produced the mask.
    """

    mask: np.ndarray
    score: float
    stability: float
    point: tuple[float, float]


def automatic_masks(
    predictor: Predictor,
    picture: Picture,
    k: int,
    config: AutomaticMasksConfig | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[ProposedMask]:
    """Propose masks for all objects on slice k, which is encoded once.

    Args:
        predictor: The predictor of any method that takes clicks.
        picture: The image.
        k: Index of the slice.
        config: The grid and the thresholds.
        progress: Function called after each batch with the number of points done and in total.

    Returns:
        The masks, the highest score first; none on a blank slice.
    """
    config = config or AutomaticMasksConfig()
    if is_blank(picture, k):
        return []
    height, width = picture.shape[1], picture.shape[0]
    points = point_grid(config.points_per_side) * np.array([width, height], np.float32)
    batches: list[_Kept] = []
    for start in range(0, len(points), config.batch):
        chunk = points[start : start + config.batch]
        batches.append(predictor.run(partial(_propose, predictor, picture, k, chunk, config)))
        if progress:
            progress(min(start + config.batch, len(points)), len(points))
    boxes, scores, stability = (torch.cat([getattr(one, name) for one in batches]) for name in _NUMBERS)
    packed, origin = (
        np.concatenate([getattr(one, name) for one in batches]) for name in ("packed", "origin")
    )
    kept = batched_nms(boxes, scores, torch.zeros(len(boxes), dtype=torch.long), config.overlap)
    return [
        ProposedMask(
            np.unpackbits(packed[n], count=height * width).reshape(height, width).astype(bool),
            float(scores[n]),
            float(stability[n]),
            (float(origin[n, 0]), float(origin[n, 1])),
        )
        for n in kept.tolist()
    ]


def point_grid(points_per_side: int) -> np.ndarray:
    """Centres of n × n cells, row by row: (n², 2) as (x, y) in shares of the slice."""
    middles = (np.arange(points_per_side, dtype=np.float32) + 0.5) / points_per_side
    return np.stack(np.meshgrid(middles, middles), -1).reshape(-1, 2)


def stability_score(logits: Tensor, offset: float) -> Tensor:
    """IoU of the masks of logits (..., H, W) at thresholds ±`offset`, 0 if both are empty: (...).

    The mask at the higher threshold lies within the other, so the IoU is the ratio of their areas.
    """
    inner = (logits > offset).sum((-2, -1), dtype=torch.float32)
    outer = (logits > -offset).sum((-2, -1), dtype=torch.float32)
    return inner / outer.clamp(min=1)


_NUMBERS = ("boxes", "scores", "stability")


@dataclass(frozen=True)
class _Kept:
    """Masks of one batch that passed the thresholds, with eight pixels per byte."""

    boxes: Tensor
    scores: Tensor
    stability: Tensor
    packed: np.ndarray
    origin: np.ndarray


@torch.inference_mode()
def _propose(
    predictor: Predictor, picture: Picture, k: int, points: np.ndarray, config: AutomaticMasksConfig
) -> _Kept:
    """Masks for clicks (N, 2) that pass the thresholds, out of M candidates each, (N, M, H, W)."""
    prompts = [SlicePrompt(points=point[None], labels=np.ones(1, np.int64)) for point in points]
    size = picture.shape[1], picture.shape[0]
    logits = predictor.segmenter.candidates(predictor.embedding(picture, [k]), prompts, size)
    candidates = logits.masks.shape[1]
    masks = logits.masks.flatten(0, 1)
    stability = stability_score(masks, config.offset)
    if logits.quality is None:
        scores, threshold = stability, config.stability
    else:
        scores, threshold = logits.quality.flatten(0, 1).float(), config.pred_iou
    passed = ((scores > threshold) & (stability > config.stability) & (masks > 0).any(-1).any(-1)).nonzero()[
        :, 0
    ]
    passing = masks[passed] > 0
    boxes = masks_to_boxes(passing) if len(passing) else torch.zeros(0, 4)
    return _Kept(
        boxes.float().cpu(),
        scores[passed].cpu(),
        stability[passed].cpu(),
        np.packbits(passing.flatten(1).cpu().numpy(), axis=1),
        points[(passed // candidates).cpu().numpy()],
    )
