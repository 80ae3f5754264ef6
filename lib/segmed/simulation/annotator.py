"""A simulated annotator in one window: first prompts of every kind, and corrections where a mask is wrong.

Protocols: clicks into the largest error as in Segment Anything (Kirillov et al., 2023); scribbles as lines, centre
lines and inner contours as in ScribblePrompt (Wong et al., ECCV 2024).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np
from skimage.morphology import skeletonize

from segmed.simulation.noise import resample, smooth_noise


@dataclass
class Prompted:
    """What was said about the object in a window, in px of the window.

    Attributes:
        box: (4,) x0, y0, x1, y1 of pixel centres, or None.
        points: clicks (x, y).
        labels: 1 on the object, 0 beside it.
        scribbles: (2, S, S) float32 in [0, 1], on the object and beside it, or None.
        previous: (S, S) float32 probability of the previous mask, or None.
    """

    box: np.ndarray | None = None
    points: list[tuple[float, float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    scribbles: np.ndarray | None = None
    previous: np.ndarray | None = None

    @property
    def is_lone_click(self) -> bool:
        """Whether part, object and whole are all meant as likely: one click and nothing else."""
        said = self.box is not None or self.scribbles is not None or self.previous is not None
        return len(self.points) == 1 and not said

    def with_click(self, at: tuple[float, float], label: int) -> Prompted:
        """With one more click."""
        return replace(self, points=[*self.points, at], labels=[*self.labels, label])

    def with_scribble(self, stroke: np.ndarray, label: int) -> Prompted:
        """With one more scribble (S, S)."""
        drawn = np.zeros((2, *stroke.shape), np.float32) if self.scribbles is None else self.scribbles.copy()
        drawn[1 - label] = np.maximum(drawn[1 - label], stroke)
        return replace(self, scribbles=drawn)


def draw_box(truth: np.ndarray, rng: np.random.Generator, inward: float = 0.06, outward: float = 0.2) -> np.ndarray:
    """A box around an object (S, S) boolean as people draw it: each has a carelessness of its own."""
    y, x = np.nonzero(truth)
    box = np.array([x.min(), y.min(), x.max(), y.max()], np.float32)
    sides = np.tile(box[2:] - box[:2] + 1, 2)
    move = (rng.random(4) * (inward + outward) - inward) * sides * rng.random() ** 1.5
    return np.asarray(box + move * np.array([-1, -1, 1, 1]), np.float32)


def click_in(region: np.ndarray, rng: np.random.Generator, deepest_share: float = 0.55) -> tuple[float, float]:
    """A pixel (x, y) of a region (S, S) boolean, not empty: its deepest one or any."""
    if rng.random() < deepest_share:
        distance = cv2.distanceTransform(np.pad(region, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
        y, x = np.unravel_index(int(distance.argmax()), region.shape)
    else:
        at = np.argwhere(region)
        y, x = at[rng.integers(len(at))]
    return float(x), float(y)


def scribble_in(region: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A stroke (S, S) in [0, 1] of 1 to 3 px within a region (S, S) boolean: a line, its centre line or a contour."""
    kind, size = rng.integers(3), len(region)
    if kind == 0:
        at = np.argwhere(region)[:, ::-1]
        ends = at[rng.integers(0, len(at), int(rng.integers(2, 4)))]
        stroke: Any = np.zeros(region.shape, np.uint8)
        cv2.polylines(stroke, [ends.astype(np.int32)], False, (1.0,))
    elif kind == 1:
        stroke = skeletonize(region).astype(np.uint8)
    else:
        distance = cv2.distanceTransform(np.pad(region, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
        level = distance.max() * rng.uniform(0.2, 0.7)
        stroke = (np.abs(distance - level) <= 0.7).astype(np.uint8)
    # broken by smooth noise, and shaken as a hand shakes
    keep = smooth_noise(size, int(rng.integers(4, 9)), rng)[..., 0] > rng.uniform(-0.6, 0.2)
    stroke = stroke * keep if (stroke * keep).any() else stroke
    if rng.random() < 0.5:
        stroke = np.asarray(cv2.dilate(stroke.astype(np.uint8), np.ones((2, 2), np.uint8)))
    if rng.random() < 0.6:
        axis = np.arange(size, dtype=np.float32)
        places = np.stack(np.meshgrid(axis, axis), -1) + smooth_noise(size, 6, rng) * 2
        moved = resample(stroke.astype(np.float32), places)
    else:
        moved = stroke.astype(np.float32)
    moved = moved * cv2.dilate(region.astype(np.uint8), np.ones((3, 3), np.uint8))
    if not moved.any():
        x, y = click_in(region, rng, 1.0)
        moved[int(y), int(x)] = 1.0
    return np.asarray(moved, np.float32)


def roughen(truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A mask (S, S) that is about right, as a lasso or another method gives it: bent, moved, grown or shrunken."""
    size = len(truth)
    axis = np.arange(size, dtype=np.float32)
    radius = max(2.0, float(np.sqrt(truth.sum() / np.pi)))
    amount = rng.uniform(0.05, 0.5) * radius
    places = np.stack(np.meshgrid(axis, axis), -1) + smooth_noise(size, int(rng.integers(3, 9)), rng) * amount
    bent = resample(truth.astype(np.float32), places)
    grown = max(1, int(rng.integers(0, max(2, int(0.25 * radius)))))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * grown + 1, 2 * grown + 1))
    change = rng.random()
    bent = cv2.dilate(bent, kernel) if change < 0.35 else cv2.erode(bent, kernel) if change < 0.6 else bent
    return bent if (bent > 0.5).any() else truth.astype(np.float32)


def correct(
    prompted: Prompted, probability: np.ndarray, truth: np.ndarray, rng: np.random.Generator, forget: float = 0.35
) -> Prompted | None:
    """The prompt after one more correction of a mask; None if nothing is left to correct.

    Args:
        prompted: what was said so far.
        probability: (S, S) of the mask that it gave, which the next one sees as previous mask.
        truth: (S, S) boolean.
        rng: source of randomness.
        forget: share of corrections that come without the previous mask, as some viewers send clicks only.
    """
    found = probability > 0.5
    missed, extra = truth & ~found, found & ~truth
    if not missed.any() and not extra.any():
        return None
    depths = [
        cv2.distanceTransform(np.pad(e, 1).astype(np.uint8), cv2.DIST_L2, 3).max() if e.any() else 0.0
        for e in (missed, extra)
    ]
    label = int(depths[0] >= depths[1])
    region = missed if label else extra
    if rng.random() < 0.2 and depths[1 - label] > 2:
        stroke = scribble_in(region, rng)
        told = prompted.with_scribble(stroke, label)
    else:
        told = prompted.with_click(click_in(region, rng, 0.7), label)
    keep = rng.random() >= forget
    return replace(told, previous=np.asarray(probability, np.float32) if keep else None)
