"""A simulated annotator in one window: first prompts of every kind, and corrections of wrong masks.

Protocols: clicks on the largest error as in Segment Anything (Kirillov et al., 2023); scribbles as lines,
centre lines and inner contours as in ScribblePrompt (Wong et al., ECCV 2024).
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
    """The prompts for the object in a window, in px of the window.

    Attributes:
        box: The box (4,) as x0, y0, x1, y1 of pixel centres, or None.
        points: Clicks as (x, y).
        labels: Label of each click, 1 on the object and 0 beside it.
        scribbles: Strokes on the object and beside it, (2, S, S) float32 in [0, 1], or None.
        previous: Probability of the previous mask, (S, S) float32, or None.
    """

    box: np.ndarray | None = None
    points: list[tuple[float, float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    scribbles: np.ndarray | None = None
    previous: np.ndarray | None = None

    @property
    def is_lone_click(self) -> bool:
        """Whether the prompt is one click only, so that part, object and whole are equally likely."""
        more = self.box is not None or self.scribbles is not None or self.previous is not None
        return len(self.points) == 1 and not more

    def with_click(self, at: tuple[float, float], label: int) -> Prompted:
        """Add a click at (x, y)."""
        return replace(self, points=[*self.points, at], labels=[*self.labels, label])

    def with_scribble(self, stroke: np.ndarray, label: int) -> Prompted:
        """Add a scribble (S, S)."""
        drawn = np.zeros((2, *stroke.shape), np.float32) if self.scribbles is None else self.scribbles.copy()
        drawn[1 - label] = np.maximum(drawn[1 - label], stroke)
        return replace(self, scribbles=drawn)


def draw_box(
    truth: np.ndarray, rng: np.random.Generator, inward: float = 0.06, outward: float = 0.2
) -> np.ndarray:
    """Draw a jittered box around a boolean object (S, S).

    Each side moves inwards or outwards by a random share of the box, scaled by a precision that is drawn per
    box.
    """
    y, x = np.nonzero(truth)
    box = np.array([x.min(), y.min(), x.max(), y.max()], np.float32)
    sides = np.tile(box[2:] - box[:2] + 1, 2)
    move = (rng.random(4) * (inward + outward) - inward) * sides * rng.random() ** 1.5
    return np.asarray(box + move * np.array([-1, -1, 1, 1]), np.float32)


def click_in(
    region: np.ndarray, rng: np.random.Generator, deepest_share: float = 0.55
) -> tuple[float, float]:
    """Draw a pixel (x, y) of a boolean region (S, S), not empty: its deepest pixel, or any at random."""
    if rng.random() < deepest_share:
        distance = cv2.distanceTransform(np.pad(region, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
        y, x = np.unravel_index(int(distance.argmax()), region.shape)
    else:
        at = np.argwhere(region)
        y, x = at[rng.integers(len(at))]
    return float(x), float(y)


def scribble_in(region: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a stroke (S, S) in [0, 1] in a boolean region: a line, the centre line or a contour."""
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
    # Smooth noise interrupts the stroke and displaces it, like an unsteady hand.
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
    """Distort a mask (S, S) as a lasso or another method would: deform it, and dilate or erode it."""
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
    prompted: Prompted,
    probability: np.ndarray,
    truth: np.ndarray,
    rng: np.random.Generator,
    forget: float = 0.35,
) -> Prompted | None:
    """Add a correction of a mask to its prompt, or return None if there is nothing to correct.

    Args:
        prompted: The prompts so far.
        probability: Probability of the mask (S, S), which becomes the previous mask of the next prediction.
        truth: The true mask (S, S), boolean.
        rng: A random generator.
        forget: Share of corrections without the previous mask, as some viewers send clicks only.
    """
    predicted = probability > 0.5
    missed, extra = truth & ~predicted, predicted & ~truth
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
        corrected = prompted.with_scribble(stroke, label)
    else:
        corrected = prompted.with_click(click_in(region, rng, 0.7), label)
    keep = rng.random() >= forget
    return replace(corrected, previous=np.asarray(probability, np.float32) if keep else None)
