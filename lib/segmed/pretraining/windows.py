"""Random windows of labelled images: rotated, mirrored, stretched, deformed and cropped.

All transformations are one resampling. A window pixel u maps to a position p' in the transformed image, and
by the inverse transformation to a position p in the stored image: p = c + A^-1 (p' - c + d(p')), with A a
rotation, mirroring and stretching around the object's centre c, and d a smooth random deformation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from segmed.simulation.noise import resample, smooth_noise

_POINTS = 300  # sampled pixels of the object from which its extent after rotation is computed
_SMALLEST = 16.0  # smallest side in px of the image; smaller windows would show interpolation only
_CALM = 0.6  # share of neighbours with a similar size of the object
_SWELLING = (
    0.14,
    0.45,
)  # standard deviations of the log of its growth, for these and for the other neighbours
_ASPECT = 2.0  # largest ratio of a window's sides, and so of its stretching to the square


@dataclass(frozen=True)
class Window:
    """A window of S x S px with its object.

    Attributes:
        image: The pixels (S, S, 3), float32 in [0, 1].
        truth: Share of each pixel that the object covers, (S, S), float32 in [0, 1].
        valid: Boolean (S, S), true for pixels that lie on the image.
    """

    image: np.ndarray
    truth: np.ndarray
    valid: np.ndarray


@dataclass(frozen=True)
class TrainingView:
    """The position of a window in the stored image.

    Attributes:
        places: Position (S, S, 2) of each pixel of the window as x, y in px of the image, float32.
        centre: Centre (2,) of the object in px of the window.
        radius: Half of the object's longer side in px of the window.
        step: Number of px of the image per px of the window.
    """

    places: np.ndarray
    centre: np.ndarray
    radius: float
    step: float


def look_at(
    mask: np.ndarray,
    size: int,
    rng: np.random.Generator,
    zoom: tuple[float, float],
    on_click: bool,
    bend: float = 0.03,
) -> TrainingView:
    """Draw a random view of an object.

    Args:
        mask: The mask of the object (H, W), boolean and not empty.
        size: Side S of the window in px.
        rng: A random generator.
        zoom: Smallest and largest side of the window in sides of the object's box.
        on_click: Whether the window is a square around a random pixel of the object, as for clicks, instead
            of around its box.
        bend: Largest deformation in sides of the window.
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
    return TrainingView(
        places.astype(np.float32), window_centre, float((sides / extent).max() * size / 2), step
    )


def show(image: np.ndarray, mask: np.ndarray, view: TrainingView) -> Window:
    """Resample a uint8 image (H, W) or (H, W, 3) and a boolean mask (H, W), smoothed first where reduced."""
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
    resampled = resample(part, places, repeat_edge=True)
    truth = resample(inside, places)
    x, y = view.places[..., 0], view.places[..., 1]
    valid = (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
    pixels = resampled.astype(np.float32) / 255
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, 2)
    pixels *= valid[..., None]
    return Window(pixels, truth * valid, valid)


def neighbour_of(view: TrainingView, rng: np.random.Generator) -> TrainingView:
    """Simulate the view on a neighbouring slice: deformed, with the object larger or smaller.

    The object of radius r around c grows by a factor s: d(p) = (1/s - 1) (p - c) exp(-|p - c|^2 / 2 (1.3 r +
    2)^2), so that distant pixels stay in place.
    """
    # Most slices differ little; at the ends of an object its size changes by half from slice to slice.
    size = view.places.shape[0]
    axis = np.arange(size, dtype=np.float32)
    u = np.stack(np.meshgrid(axis, axis), -1)
    away = u - view.centre
    swelling = _SWELLING[0] if rng.random() < _CALM else _SWELLING[1]
    growth = float(np.exp(np.clip(rng.normal(0, swelling), -1.1, 1.1)))
    reach = np.exp(-(away**2).sum(-1, keepdims=True) / (2 * (1.3 * view.radius + 2) ** 2))
    moved = u + (1 / growth - 1) * away * reach + rng.normal(0, 0.012 * size, 2)
    moved = moved + smooth_noise(size, int(rng.integers(3, 7)), rng) * size * 0.03 * rng.random()
    # Extrapolate the positions linearly beyond the window.
    wider = np.pad(view.places, ((size // 2,) * 2, (size // 2,) * 2, (0, 0)), "reflect", reflect_type="odd")
    places = resample(wider, moved + size // 2, repeat_edge=True)
    return TrainingView(places, view.centre, view.radius, view.step)


def _turn(rng: np.random.Generator) -> np.ndarray:
    """A random matrix (2, 2) of rotation, mirroring and stretching."""
    angle = rng.uniform(-np.pi, np.pi) if rng.random() < 0.4 else rng.normal(0, 0.15)
    c, s = np.cos(angle), np.sin(angle)
    stretch = np.exp(rng.normal(0, 0.1))
    turn = np.array([[c, -s], [s, c]]) @ np.diag([stretch, 1 / stretch])
    if rng.random() < 0.5:
        turn = np.diag([-1.0, 1.0]) @ turn
    return np.asarray(turn)
