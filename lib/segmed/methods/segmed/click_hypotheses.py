"""The masks that clicks may mean, described by numbers from which the meant one is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from segmed.imaging.prompts import SlicePrompt
from segmed.imaging.scribbles import scribbles_to_clicks
from segmed.methods.segmed.views import CLICK_SIDES, View, compared, expected_dice, found_in, is_lone_click
from segmed.sam.embedding import Embedding

FEATURES = (
    "predicted IoU",
    "agreement",  # sum over m of trust_m Dice(n, m), relative to the sum of trust
    "log area",  # as a share of the slice
    "axes cut off",  # by the window
    "depth of the click",  # the first one on the object, relative to the deepest pixel
    "part of the click",  # share of the mask that is connected to the click
    "share of its box",
    "contrast",  # between both sides of the outline, relative to the deviation of the slice
    "certainty inside",  # mean of |2p - 1|
    "certainty around",
    "offset of the click",  # from the middle of the box, relative to its diagonal
    "sides of the slice reached",
    "squared log of the aspect",
    "share of its window",
    "texture",  # deviation inside, relative to that of the slice
    "largest window",
    "second window",
    "third window",
    "log of depth² / area",
    "clicks agreed with",  # share of the clicks on whose side the mask is
    "log of the number of clicks",
    "empty",
)
MOST_CLICKS = 3  # that the choice was trained for
_LEAST_TRUST = 0.01  # smallest weight of a mask that is not empty
CUT_OFF = 0.15  # deduction from the predicted IoU of a mask for each axis on which its window cuts it off


@dataclass(frozen=True)
class Hypotheses:
    """Masks of one prompt, in the same reduced grid of h × w px.

    Attributes:
        logits: Logits (N, h, w), float32.
        grey: Brightness of the slice (h, w), float32.
        clicks: The clicks (C, 2) as x, y in px of the grid, the first one on the object first; C ≥ 1.
        labels: 1 for clicks on the object and 0 for clicks on the background, (C,).
        iou: Predicted IoU (N,).
        cuts: Number of axes (N,) on which the window cuts the mask off.
        trust: Predicted IoU less a deduction for each of these axes, 0 for empty masks, (N,).
        covered: Share (N,) of its window that the mask covers.
        window: Index (N,) of the window, 0 for the largest.
        agreement: Expected Dice (N,) with the other masks.
        places: View and mask head of each mask.
        extents: Box (4,) of each mask in px of the slice, or None for empty masks.
    """

    logits: np.ndarray
    grey: np.ndarray
    clicks: np.ndarray
    labels: np.ndarray
    iou: np.ndarray
    cuts: np.ndarray
    trust: np.ndarray
    covered: np.ndarray
    window: np.ndarray
    agreement: np.ndarray
    places: list[tuple[int, int]]
    extents: list[Tensor | None]

    def features(self) -> np.ndarray:
        """Describe each mask by numbers, (N, F), float32, in the order of `FEATURES`."""
        out = np.zeros((len(self.iou), len(FEATURES)), np.float32)
        deviation = float(self.grey.std()) + 1e-3
        for n, logits in enumerate(self.logits):
            mask = logits > 0
            if not mask.any():
                out[n, -1] = 1
                continue
            window = [float(self.window[n] == index) for index in range(3)]
            known = (
                float(self.iou[n]),
                float(self.agreement[n]),
                float(np.log(mask.mean())),
                float(self.cuts[n]),
            )
            shape = _shape(mask, (int(self.clicks[0, 0]), int(self.clicks[0, 1])))
            agreed = mask[self.clicks[:, 1], self.clicks[:, 0]] == (self.labels == 1)
            look = _look(mask, logits, self.grey, deviation)
            out[n] = [
                *known,
                *shape[:3],
                *look[:3],
                *shape[3:6],
                float(self.covered[n]),
                look[3],
                *window,
                shape[6],
                float(agreed.mean()),
                float(np.log(len(agreed))),
                0.0,
            ]
        return out


def first_clicks(prompt: SlicePrompt) -> SlicePrompt:
    """The clicks of a first guess: all clicks, or at most `MOST_CLICKS` of clicks and strokes.

    The choice among masks was trained for so many clicks. One of them is on the object; the strokes then
    correct the guess as strokes.
    """
    if prompt.scribbles is None:
        return prompt
    few = scribbles_to_clicks(prompt, MOST_CLICKS)
    first = int((few.labels == 1).argmax())
    kept = [first, *(n for n in range(len(few.labels)) if n != first)][:MOST_CLICKS]
    return replace(few, points=few.points[kept], labels=few.labels[kept])


def hypotheses_of(
    embedding: Embedding,
    b: int,
    prompt: SlicePrompt,
    views: Sequence[View],
    masks: Tensor,
    quality: Tensor,
) -> Hypotheses:
    """The masks of one prompt from windows of all sizes.

    Args:
        embedding: The slices.
        b: Index of the slice.
        prompt: Clicks or scribbles; only a single click has three masks per window.
        views: The V views of `around_clicks`.
        masks: Logits (V, 4, t, t) of the views.
        quality: Predicted IoU (V, 4).
    """
    slice_size = embedding.frame.height, embedding.frame.width
    heads = range(1, masks.shape[1]) if is_lone_click(prompt) else range(1)
    places = [(row, head) for row in range(len(views)) for head in heads]
    windows = [views[row].window for row, _ in places]
    found = [found_in(masks[at], window, *slice_size) for at, window in zip(places, windows, strict=True)]
    iou = np.array([float(quality[at]) for at in places], np.float32)
    cuts = np.array([0 if entry is None else entry[1] for entry in found], np.float32)
    trust = np.where([entry is None for entry in found], 0, np.maximum(iou - CUT_OFF * cuts, _LEAST_TRUST))
    chosen = torch.stack([masks[at] for at in places])
    placed = compared(chosen, windows, slice_size)
    height, width = placed.shape[1:]
    return Hypotheses(
        placed.cpu().numpy(),
        _grey(embedding.features[b], (height, width)),
        *_reduced(prompt, slice_size, (height, width)),
        iou,
        cuts,
        trust,
        (chosen > 0).float().mean((1, 2)).cpu().numpy(),
        np.array([row % len(CLICK_SIDES) for row, _ in places]),
        expected_dice(placed, trust.tolist()).cpu().numpy(),
        places,
        [None if entry is None else entry[0] for entry in found],
    )


def _grey(image: Tensor, size: tuple[int, int]) -> np.ndarray:
    """The brightness (h, w) of an image (C, H, W) at a reduced size."""
    pixels: Any = image.permute(1, 2, 0).cpu().numpy()
    grey = pixels[..., 0] if pixels.shape[2] == 1 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(grey, size[::-1], interpolation=cv2.INTER_AREA), np.float32)


def _reduced(
    prompt: SlicePrompt, slice_size: tuple[int, int], size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """The clicks in px of the reduced grid, (C, 2) and (C,); the middle of the slice for scribbles alone."""
    if not len(prompt.points):
        return np.array([[size[1] // 2, size[0] // 2]]), np.ones(1, np.int64)
    scale = np.array([size[1] / slice_size[1], size[0] / slice_size[0]])
    clicks = np.clip((prompt.points + 0.5) * scale, 0, np.array([size[1] - 1, size[0] - 1])).astype(np.int64)
    order = np.argsort(prompt.labels != 1, kind="stable")
    return clicks[order], prompt.labels[order]


def _shape(mask: np.ndarray, click: tuple[int, int]) -> Sequence[float]:
    """Depth, part, share of box, offset, sides reached, squared log aspect, and log of depth² / area."""
    byte = mask.astype(np.uint8)
    height, width = mask.shape
    x, y = click
    depth: Any = cv2.distanceTransform(np.pad(byte, 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    deepest, area = float(depth.max()), float(byte.sum())
    _, parts, facts, _ = cv2.connectedComponentsWithStats(byte, connectivity=4)
    part = facts[parts[y, x], cv2.CC_STAT_AREA] / area if mask[y, x] else 0.0
    left, top, w, h = cv2.boundingRect(byte)
    offset = np.hypot(x - (left + (w - 1) / 2), y - (top + (h - 1) / 2)) / np.hypot(w, h)
    sides = (left == 0) + (top == 0) + (left + w == width) + (top + h == height)
    return (
        float(depth[y, x]) / max(deepest, 1.0),
        float(part),
        area / (w * h),
        float(offset),
        float(sides),
        float(np.log(w / h) ** 2),
        float(np.log(deepest**2 / area + 1e-6)),
    )


def _look(mask: np.ndarray, logits: np.ndarray, grey: np.ndarray, deviation: float) -> Sequence[float]:
    """Contrast, certainty inside and around, and texture."""
    byte = mask.astype(np.uint8)
    around = (np.asarray(cv2.dilate(byte, np.ones((7, 7), np.uint8))) > 0) & ~mask
    rim = mask & ~(np.asarray(cv2.erode(byte, np.ones((5, 5), np.uint8))) > 0)
    certainty = np.abs(np.tanh(logits / 2))  # |2p - 1| of p = sigmoid(logit)
    if not around.any():
        return 0.0, float(certainty[mask].mean()), 1.0, float(grey[mask].std()) / deviation
    inner = rim if rim.any() else mask
    return (
        abs(float(grey[inner].mean()) - float(grey[around].mean())) / deviation,
        float(certainty[mask].mean()),
        float(certainty[around].mean()),
        float(grey[mask].std()) / deviation,
    )
