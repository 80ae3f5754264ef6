"""Automatic prompts for images that no user has opened, so that a promptable model can be scored on them.

Three sources, best first:

1. Models that label whole slices find the objects themselves: each connected part of a label is one.
2. Clicks at the places where labelled images had their objects, if such places are given, since studies of
   one kind show the same things at about the same places; else a grid of clicks, as in the automatic masks of
   Kirillov et al., Segment Anything (2023). Each click is decoded from the cached embedding; the masks of the
   highest predicted IoU that are neither specks nor backgrounds nor copies of each other are taken for
   objects.
3. Methods without a cached embedding pay for each prompt, so a grid would cost too much: the regions of
   thresholds (Otsu, 1979) with the strongest edges are taken for objects instead.

The result is a box per object, which is the prompt that most users draw.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_multiotsu

from segmed.imaging.labels.masks import slice_box
from segmed.imaging.prompts import SlicePrompt

Corners = tuple[float, float, float, float]

_SMALLEST, _LARGEST = 0.001, 0.4  # share of the slice that an object covers
_SAME = 0.5  # IoU of masks that mean the same object


def click_prompts(size: tuple[int, int], grid: int, places: np.ndarray | None = None) -> list[SlicePrompt]:
    """Prompts of one click each, on an even grid or at given places.

    Args:
        size: Size (H, W) of the slice in px.
        grid: Number of clicks per side.
        places: Places (N, 2) as shares (x, y) of width and height, in place of the grid; at most grid² of
            them are used, far apart from each other.

    Returns:
        Prompts with one foreground click each.
    """
    if places is None or not len(places):
        line = (np.arange(grid) + 0.5) / grid
        shares = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
    else:
        shares = _apart(np.asarray(places, float), grid**2)
    height, width = size
    pixels = np.clip(np.floor(shares * [width, height]), 0, [width - 1, height - 1])
    return [
        SlicePrompt(points=np.array([p], np.float32), labels=np.ones(1, np.int64))
        for p in np.unique(pixels, axis=0)
    ]


def distinct_objects(masks: np.ndarray, quality: np.ndarray, most: int) -> list[np.ndarray]:
    """Masks that could each be an object of its own, the best first.

    Args:
        masks: Masks (K, h, w), boolean.
        quality: Quality (K,) of the masks; larger is better.
        most: Largest number of masks to keep.

    Returns:
        Masks (h, w), boolean; none if all are empty, specks or backgrounds.
    """
    share = masks.reshape(len(masks), -1).mean(1)
    chosen: list[np.ndarray] = []
    for n in np.argsort(-quality, kind="stable"):
        if len(chosen) == most:
            break
        if not _SMALLEST <= share[n] <= _LARGEST:
            continue
        if all((masks[n] & other).sum() <= _SAME * (masks[n] | other).sum() for other in chosen):
            chosen.append(masks[n])
    return chosen


def class_objects(classes: np.ndarray, most: int) -> list[np.ndarray]:
    """The largest connected parts of a label map (h, w), each of one class; 0 is the background."""
    parts: list[np.ndarray] = []
    for value in np.unique(classes[classes > 0]):
        components, count = ndimage.label(classes == value)
        parts += [components == n for n in range(1, count + 1)]
    parts = [part for part in parts if part.mean() >= _SMALLEST]
    return sorted(parts, key=lambda part: -int(part.sum()))[:most]


def region_objects(image: np.ndarray, most: int) -> list[np.ndarray]:
    """Regions between thresholds of the grey values, those with the strongest edges first.

    Args:
        image: Grey values (h, w), float.
        most: Largest number of masks to keep.

    Returns:
        Masks (h, w), boolean; none if all grey values are equal.
    """
    # strength of a region: mean gradient on its rim × log of its area, so that small noise ranks low
    smooth = ndimage.gaussian_filter(image.astype(float), 1.5)
    try:
        levels = threshold_multiotsu(smooth, classes=4, nbins=64)
    except ValueError:  # fewer than four shades
        return []
    edge = ndimage.gaussian_gradient_magnitude(image.astype(float), 1.5)
    masks, strength = [], []
    for above in (smooth > level for level in levels):
        for side in (above, ~above):
            components, _ = ndimage.label(side)
            sizes = np.bincount(components.ravel())[1:] / image.size
            for n in np.flatnonzero((sizes >= _SMALLEST) & (sizes <= _LARGEST)) + 1:
                mask = ndimage.binary_fill_holes(components == n)
                rim = mask & ~ndimage.binary_erosion(mask)
                masks.append(mask)
                strength.append(float(edge[rim].mean()) * float(np.log(mask.sum())))
    return distinct_objects(np.stack(masks), np.array(strength), most) if masks else []


def box_of(mask: np.ndarray, size: tuple[int, int]) -> Corners:
    """The box x0, y0, x1, y1 (ends inclusive, in px of a slice of `size`) of a scaled-down mask (h, w)."""
    x0, y0, x1, y1 = slice_box(mask)
    along_x, along_y = size[1] / mask.shape[1], size[0] / mask.shape[0]
    return (
        x0 * along_x,
        y0 * along_y,
        max((x1 + 1) * along_x - 1, x0 * along_x),
        max((y1 + 1) * along_y - 1, y0 * along_y),
    )


def _apart(places: np.ndarray, most: int) -> np.ndarray:
    """The place nearest to the mean of all, and then repeatedly the place farthest from those chosen."""
    distance = np.linalg.norm(places - places.mean(0), axis=1)
    chosen = [int(distance.argmin())]
    distance = np.linalg.norm(places - places[chosen[0]], axis=1)
    while len(chosen) < min(most, len(places)) and distance.max() > 0.02:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(places - places[chosen[-1]], axis=1))
    return places[chosen]
