"""Masks of everything on a slice, without a prompt: a grid of clicks, and what is left of their masks after sorting.

Source: Kirillov et al., Segment Anything (ICCV 2023), automatic mask generation on the whole image (no crops).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import batched_nms, masks_to_boxes

from segmed.imaging.picture import Picture
from segmed.imaging.prompts import SlicePrompt
from segmed.methods.predictor import Predictor, Progress, is_blank


@dataclass(frozen=True)
class AutomaticMasksConfig:
    """Which masks are proposed. The defaults are those published with SAM.

    Attributes:
        points_per_side: of the grid.
        pred_iou: predicted IoU that a mask has to exceed.
        stability: share that a mask has to exceed of its area that stays when its threshold moves.
        offset: logits by which the threshold moves up and down.
        overlap: IoU of boxes above which the worse one of two masks is dropped.
        batch: points decoded together, in one turn on the device.
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
                f"points_per_side {self.points_per_side} and batch {self.batch} must be at least 1. Take 32 of each."
            )
        if not self.offset > 0 or not 0 <= self.overlap <= 1:
            raise ValueError(
                f"offset {self.offset} must be above 0 and overlap {self.overlap} from 0 to 1. Take 1 and 0.7."
            )


# `sam2`: as SAM2's own generator. `relaxed`: for images unlike those of the training and for small models, whose masks
# have soft edges; `segmed` needs it. `all`: nothing is dropped but near copies.
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
    """One mask.

    Attributes:
        mask: (H, W) boolean.
        score: predicted IoU, or the stability where a method predicts none.
        stability: IoU of the masks at the threshold moved up and down.
        point: (x, y) in px of the slice, the click it came from.
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
    progress: Progress | None = None,
) -> list[ProposedMask]:
    """Propose masks for all that is on slice k, which is encoded once.

    Args:
        predictor: of any method that takes clicks.
        picture: the image.
        k: the slice.
        config: grid and thresholds.
        progress: told after each batch of points.

    Returns:
        Masks, the highest score first; none on a slice that shows nothing.
    """
    config = config or AutomaticMasksConfig()
    if is_blank(picture, k):
        return []
    height, width = picture.shape[1], picture.shape[0]
    points = point_grid(config.points_per_side) * np.array([width, height], np.float32)
    kept: list[_Kept] = []
    for start in range(0, len(points), config.batch):
        chunk = points[start : start + config.batch]
        kept.append(predictor.queue.run(lambda chunk=chunk: _propose(predictor, picture, k, chunk, config)))  # type: ignore[misc]
        if progress:
            progress(min(start + config.batch, len(points)), len(points))
    boxes, scores, stability = (torch.cat([getattr(one, name) for one in kept]) for name in _NUMBERS)
    packed, origin = (np.concatenate([getattr(one, name) for one in kept]) for name in ("packed", "origin"))
    chosen = batched_nms(boxes, scores, torch.zeros(len(boxes), dtype=torch.long), config.overlap)
    return [
        ProposedMask(
            np.unpackbits(packed[n], count=height * width).reshape(height, width).astype(bool),
            float(scores[n]),
            float(stability[n]),
            (float(origin[n, 0]), float(origin[n, 1])),
        )
        for n in chosen.tolist()
    ]


def point_grid(points_per_side: int) -> np.ndarray:
    """(n², 2) as (x, y) in shares of the slice, row by row: the middles of n × n cells."""
    middles = (np.arange(points_per_side, dtype=np.float32) + 0.5) / points_per_side
    return np.stack(np.meshgrid(middles, middles), -1).reshape(-1, 2)


def stability_score(logits: Tensor, offset: float) -> Tensor:
    """IoU of the masks (..., H, W) at thresholds moved up and down by `offset`; 0 where both are empty."""
    inner = (logits > offset).sum((-2, -1), dtype=torch.float32)
    outer = (logits > -offset).sum((-2, -1), dtype=torch.float32)
    return inner / outer.clamp(min=1)


_NUMBERS = ("boxes", "scores", "stability")


@dataclass(frozen=True)
class _Kept:
    """Masks that passed the thresholds, eight pixels to a byte: some thousands may have to wait for the last."""

    boxes: Tensor
    scores: Tensor
    stability: Tensor
    packed: np.ndarray
    origin: np.ndarray


@torch.inference_mode()
def _propose(predictor: Predictor, picture: Picture, k: int, points: np.ndarray, config: AutomaticMasksConfig) -> _Kept:
    prompts = [SlicePrompt(points=point[None], labels=np.ones(1, np.int64)) for point in points]
    size = picture.shape[1], picture.shape[0]
    logits = predictor.segmenter.candidates(predictor.embedding(picture, [k]), prompts, size)
    several = logits.masks.shape[1]
    masks = logits.masks.flatten(0, 1)
    stability = stability_score(masks, config.offset)
    if logits.quality is None:
        scores, least = stability, config.stability
    else:
        scores, least = logits.quality.flatten(0, 1).float(), config.pred_iou
    passed = ((scores > least) & (stability > config.stability) & (masks > 0).any(-1).any(-1)).nonzero()[:, 0]
    found = masks[passed] > 0
    boxes = masks_to_boxes(found) if len(found) else torch.zeros(0, 4)
    return _Kept(
        boxes.float().cpu(),
        scores[passed].cpu(),
        stability[passed].cpu(),
        np.packbits(found.flatten(1).cpu().numpy(), axis=1),
        points[(passed // several).cpu().numpy()],
    )
