"""Shape-based interpolation: the outline of an object on slices between two that show it.

Source: Raya and Udupa, "Shape-based interpolation of multidimensional objects", IEEE Transactions on Medical
Imaging 9(1), 1990. The signed distance to the outline is interpolated linearly; its zero is the outline
between. The masks are first moved onto each other's centre, so that an object that runs obliquely does not
vanish.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

import numpy as np
from scipy import ndimage

_MARGIN = 2  # px around both masks, so that the outline is surrounded by background


def interpolated(
    masks: Mapping[int, np.ndarray], edges: tuple[float, float] = (1.0, 1.0)
) -> dict[int, np.ndarray]:
    """Masks for the slices between neighbouring slices of `masks`.

    Args:
        masks: Mask (H, W) by slice, boolean; empty ones are left out.
        edges: Edges of a pixel along the rows and columns of a mask (y, x), in any common unit.

    Returns:
        Masks (H, W) of the slices between, by slice.
    """
    ordered = sorted(k for k, mask in masks.items() if mask.any())
    out: dict[int, np.ndarray] = {}
    for low, high in itertools.pairwise(ordered):
        out.update(_between(masks[low], masks[high], range(low + 1, high), high - low, edges))
    return out


def _between(
    first: np.ndarray, last: np.ndarray, ks: range, gap: int, edges: tuple[float, float]
) -> Iterable[tuple[int, np.ndarray]]:
    window = ndimage.find_objects((first | last).astype(np.uint8))[0]
    centres = [np.array(ndimage.center_of_mass(mask[window])) for mask in (first, last)]
    pad = _MARGIN + int(np.ceil(np.abs(centres[1] - centres[0]).max()))
    distances = [_signed_distance(np.pad(mask[window], pad), edges) for mask in (first, last)]
    for n, k in enumerate(ks, start=1):
        share = n / gap
        centre = (1 - share) * centres[0] + share * centres[1]
        here = sum(
            weight * ndimage.shift(distance, centre - own, order=1, mode="nearest")
            for weight, distance, own in zip((1 - share, share), distances, centres, strict=True)
        )
        mask = np.zeros(first.shape, bool)
        mask[window] = (here > 0)[pad:-pad, pad:-pad]
        yield k, mask


def _signed_distance(mask: np.ndarray, edges: tuple[float, float]) -> np.ndarray:
    """Distance (H, W) to the outline, positive inside."""
    inside = ndimage.distance_transform_edt(mask, sampling=edges)
    outside = ndimage.distance_transform_edt(~mask, sampling=edges)
    return np.asarray(np.where(mask, inside - 0.5 * min(edges), 0.5 * min(edges) - outside))
