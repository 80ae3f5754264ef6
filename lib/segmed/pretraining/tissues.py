"""Tissues as training objects: connected pixels of similar brightness in a real image.

Labels of organs teach that an object is one filled area. White matter, the muscle around a ventricle or the
cytoplasm around a nucleus are not: they have holes and branches, and their outline follows the grey values.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from skimage.filters import threshold_multiotsu

from segmed.data.datasets.training_pack import PackImage

_SIDE = 256  # longer side in px at which tissues are found
_SMALLEST, _LARGEST = 250, 0.4  # area of a tissue: least in px, most as a share of the image
_CONTRAST = 14.0  # least difference in grey levels between a tissue and what surrounds it
_OPEN_SHARE = 0.9  # a tissue that covers less of its outline, filled, has holes
_BINS = 48  # of the histogram from which thresholds are computed
_TRIES = 4  # number of parts of the image that are looked at


def tissue(image: PackImage, rng: np.random.Generator) -> np.ndarray | None:
    """Find a tissue in an image, one with holes where there is one.

    The grey values of a random part of the image are divided into two to four classes (Liao, Chen and Chung,
    A fast algorithm for multilevel thresholding, Journal of Information Science and Engineering, 2001). A
    connected part of one class in the whole image is the tissue.

    Returns:
        The mask (H, W), boolean and not empty, or None if nothing stands out.
    """
    for _ in range(_TRIES):
        found = _found(_grey(image), rng)
        if found is not None:
            height, width = image.labels.shape
            mask: Any = cv2.resize(found.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
            return np.asarray(mask > 0.5)
    return None


def _found(grey: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    size = np.array(grey.shape)
    part = np.maximum((size * rng.uniform(0.25, 1.0)).astype(int), 16)
    y, x = (int(rng.integers(max(1, whole - side + 1))) for whole, side in zip(size, part, strict=True))
    classes = int(rng.integers(2, 5))
    try:
        limits = threshold_multiotsu(grey[y : y + part[0], x : x + part[1]], classes, _BINS)
    except ValueError:  # fewer different values than classes
        return None
    chosen = int(rng.integers(classes))
    low = limits[chosen - 1] if chosen else -np.inf
    high = limits[chosen] if chosen < classes - 1 else np.inf
    alike = ((grey > low) & (grey <= high)).astype(np.uint8)
    width = int(rng.integers(2, 5))  # bridges as narrow as this are cut
    ball = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    opened: Any = cv2.morphologyEx(alike, cv2.MORPH_OPEN, ball)
    _, parts, facts, _ = cv2.connectedComponentsWithStats(opened, connectivity=4)
    fitting = [n for n in range(1, len(facts)) if _fits(facts[n], grey.shape)]
    rng.shuffle(fitting)
    candidates = [parts == n for n in fitting[:3]]
    candidates = [mask for mask in candidates if _stands_out(mask, grey)]
    if not candidates:
        return None
    return min(candidates, key=_solidity) if rng.random() < 0.7 else candidates[0]


def _fits(facts: np.ndarray, size: tuple[int, ...]) -> bool:
    """Whether a part is neither tiny nor huge nor the background, which reaches most sides of the image."""
    left, top, width, height, area = (int(v) for v in facts[:5])
    reached = (left == 0) + (top == 0) + (left + width == size[1]) + (top + height == size[0])
    return _SMALLEST <= area <= _LARGEST * size[0] * size[1] and reached <= 1


def _stands_out(mask: np.ndarray, grey: np.ndarray) -> bool:
    wider: Any = cv2.dilate(mask.astype(np.uint8), np.ones((7, 7), np.uint8))
    around = (wider > 0) & ~mask
    return bool(around.any() and abs(float(grey[mask].mean()) - float(grey[around].mean())) >= _CONTRAST)


def _solidity(mask: np.ndarray) -> float:
    """Its area over that of its outline, filled; all that have hardly any holes are alike."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    filled = sum(cv2.contourArea(outline) for outline in outlines)
    return min(float(mask.sum()) / max(filled, 1.0), _OPEN_SHARE)


@lru_cache(maxsize=1500)
def _grey(image: PackImage) -> np.ndarray:
    """The smoothed brightness (h, w) of an image in grey levels, float32."""
    grey: Any = image.image if image.image.ndim == 2 else cv2.cvtColor(image.image, cv2.COLOR_RGB2GRAY)
    scale = _SIDE / max(grey.shape)
    if scale < 1:
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.GaussianBlur(grey.astype(np.float32), (0, 0), 1.0))
