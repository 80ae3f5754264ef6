"""Windows of labelled images as the default model sees them: rotated, mirrored, stretched, bent, and cut out.

Everything is one resampling. A window pixel u maps to a place p' in the turned image, and by the inverse of the turn
to a place p in the stored image: p = c + A^-1 (p' - c) + d(p'), with A a rotation, mirror and stretch around the
object's centre c, and d a smooth random bend.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from segmed.simulation.noise import resample, smooth_noise

_POINTS = 300  # of the object, to find its extent when turned
_SMALLEST = 16.0  # px of the image: smaller windows show nothing but interpolation
_CALM, _SWELLING = 0.6, (0.14, 0.45)  # share of neighbours about as large, and deviations of the log of their growth
_ASPECT = 2.0  # how far a window may be stretched to the square


@dataclass(frozen=True)
class Window:
    """What is seen in one window of S x S px.

    Attributes:
        image: (S, S, 3) float32 in [0, 1].
        truth: (S, S) float32 in [0, 1], share of each pixel that the object covers.
        valid: (S, S) boolean, pixels that lie on the image.
    """

    image: np.ndarray
    truth: np.ndarray
    valid: np.ndarray


@dataclass(frozen=True)
class TrainingView:
    """Where window pixels lie in the stored image.

    Attributes:
        places: (S, S, 2) float32, x and y in px of the image for each pixel of the window.
        centre: (2,) middle of the object in px of the window.
        radius: half of the object's longer side in px of the window.
        step: px of the image per px of the window.
    """

    places: np.ndarray
    centre: np.ndarray
    radius: float
    step: float


def look_at(
    mask: np.ndarray, size: int, rng: np.random.Generator, zoom: tuple[float, float], on_click: bool, bend: float = 0.03
) -> TrainingView:
    """A random view of an object.

    Args:
        mask: (H, W) boolean, not empty.
        size: side S of the window in px.
        rng: source of randomness.
        zoom: smallest and largest side of the window in sides of the object's box.
        on_click: whether the window is a square around a random pixel of the object, as for clicks, instead of
            around its box.
        bend: largest bend in sides of the window.
    """
    y, x = np.nonzero(mask)
    pick = rng.integers(0, len(x), min(_POINTS, len(x)))
    ends = [x.argmin(), x.argmax(), y.argmin(), y.argmax()]
    points = np.stack([x, y], 1)[np.concatenate([ends, pick])].astype(np.float64)
    middle = (points.min(0) + points.max(0)) / 2
    turn = _turn(rng)
    turned = (points - middle) @ turn.T
    low, high = turned.min(0), turned.max(0)
    sides = high - low + 1
    factor = zoom[0] * (zoom[1] / zoom[0]) ** rng.random()
    if on_click:
        extent = np.full(2, max(sides.max() * factor, _SMALLEST * 1.5))
        centre = turned[rng.integers(len(ends), len(turned))] + rng.normal(0, 0.03, 2) * extent
    else:
        wanted = sides * factor
        extent = np.maximum(np.maximum(wanted, wanted.max() / _ASPECT), _SMALLEST)
        centre = (low + high) / 2 + rng.uniform(-0.06, 0.06, 2) * sides
    corner = centre - extent / 2
    axis = (np.arange(size) + 0.5) / size
    at = np.stack(np.meshgrid(corner[0] + axis * extent[0], corner[1] + axis * extent[1]), -1)
    if bend and rng.random() < 0.4:
        at = at + smooth_noise(size, int(rng.integers(3, 7)), rng) * bend * rng.random() * extent
    places = middle + at @ np.linalg.inv(turn).T
    step = float(extent.max() / size)
    window_centre = ((low + high) / 2 - corner) * size / extent - 0.5
    return TrainingView(places.astype(np.float32), window_centre, float((sides / extent).max() * size / 2), step)


def show(image: np.ndarray, mask: np.ndarray, view: TrainingView) -> Window:
    """Resample an image (H, W) or (H, W, 3) uint8 and a mask (H, W) boolean; what is shrunk is smoothed before."""
    height, width = mask.shape
    pad = int(4 * max(1.0, view.step))
    x0, y0 = np.maximum(np.floor(view.places.min((0, 1))).astype(int) - pad, 0)
    x1, y1 = np.ceil(view.places.max((0, 1))).astype(int) + pad + 1
    x1, y1 = min(x1, width), min(y1, height)
    if x1 <= x0 or y1 <= y0:
        x0, y0, x1, y1 = 0, 0, width, height
    part: Any = image[y0:y1, x0:x1]
    inside: Any = mask[y0:y1, x0:x1].astype(np.float32)
    places: Any = view.places - np.array([x0, y0], np.float32)
    factor = int(view.step)
    if factor > 1:
        small = max(1, round(part.shape[1] / factor)), max(1, round(part.shape[0] / factor))
        scale: Any = np.array([small[0] / part.shape[1], small[1] / part.shape[0]], np.float32)
        part = np.asarray(cv2.resize(part, small, interpolation=cv2.INTER_AREA))
        inside = np.asarray(cv2.resize(inside, small, interpolation=cv2.INTER_AREA))
        places = (places + 0.5) * scale - 0.5
    seen = resample(part, places, repeat_edge=True)
    truth = resample(inside, places)
    x, y = view.places[..., 0], view.places[..., 1]
    valid = (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
    shown = seen.astype(np.float32) / 255
    if shown.ndim == 2:
        shown = np.repeat(shown[..., None], 3, 2)
    shown *= valid[..., None]
    return Window(shown, truth * valid, valid)


def neighbour_of(view: TrainingView, rng: np.random.Generator) -> TrainingView:
    """The same view as a neighbouring slice shows it: moved a little, bent, and the object larger or smaller.

    The object of radius r around c grows by s: d(p) = (1/s - 1) (p - c) exp(-|p - c|^2 / 2 (1.3 r)^2), so that what
    lies farther away stays in place.
    """
    # most slices differ little; at the ends of an object its size changes by half from slice to slice
    size = view.places.shape[0]
    axis = np.arange(size, dtype=np.float32)
    u = np.stack(np.meshgrid(axis, axis), -1)
    away = u - view.centre
    swelling = _SWELLING[0] if rng.random() < _CALM else _SWELLING[1]
    growth = float(np.exp(np.clip(rng.normal(0, swelling), -1.1, 1.1)))
    reach = np.exp(-(away**2).sum(-1, keepdims=True) / (2 * (1.3 * view.radius + 2) ** 2))
    moved = u + (1 / growth - 1) * away * reach + rng.normal(0, 0.012 * size, 2)
    moved = moved + smooth_noise(size, int(rng.integers(3, 7)), rng) * size * 0.03 * rng.random()
    # beyond the window its places go on as they went inside it
    wider = np.pad(view.places, ((size // 2,) * 2, (size // 2,) * 2, (0, 0)), "reflect", reflect_type="odd")
    places = resample(wider, moved + size // 2, repeat_edge=True)
    return TrainingView(places, view.centre, view.radius, view.step)


def _turn(rng: np.random.Generator) -> np.ndarray:
    """A random (2, 2) rotation, mirror and stretch."""
    angle = rng.uniform(-np.pi, np.pi) if rng.random() < 0.4 else rng.normal(0, 0.15)
    c, s = np.cos(angle), np.sin(angle)
    stretch = np.exp(rng.normal(0, 0.1))
    turn = np.array([[c, -s], [s, c]]) @ np.diag([stretch, 1 / stretch])
    if rng.random() < 0.5:
        turn = np.diag([-1.0, 1.0]) @ turn
    return np.asarray(turn)
