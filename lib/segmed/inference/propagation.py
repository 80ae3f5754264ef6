"""Propagation through a volume: the mask of each slice prompts the next until the object ends.

Source: the 3-D helper published with MedSAM (a box margin of 5 px, the previous slice's prediction as
prompt). The published helper has no stop rule; the one below was tuned on procedural phantoms only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from segmed.imaging.labels.masks import largest_component, slice_box
from segmed.imaging.prompts import SlicePrompt

Predict = Callable[[int, SlicePrompt], np.ndarray]


@dataclass(frozen=True)
class PropagationRule:
    """The conditions under which a slice still shows the object.

    Attributes:
        margin: Margin in px around the neighbour's mask for the box prompt.
        max_growth: Largest allowed ratio of the mask's area to that on the previous slice.
        min_shrink: Smallest allowed ratio of the mask's area to that on the previous slice.
        min_overlap: Smallest share of the smaller of both masks that must lie in the other.
        min_likeness: Smallest allowed similarity of grey values to the prompted slice, see `likeness`.
        min_area: Smallest allowed area of a mask in px.
    """

    margin: int = 5
    max_growth: float = 1.5
    min_shrink: float = 0.25
    min_overlap: float = 0.6
    min_likeness: float = 0.5
    min_area: int = 8

    def holds(self, mask: np.ndarray, before: np.ndarray) -> bool:
        """Whether `mask` can be the same object one slice after `before`; both (H, W) boolean."""
        area, area_before = int(mask.sum()), int(before.sum())
        if area < self.min_area or not self.min_shrink <= area / max(area_before, 1) <= self.max_growth:
            return False
        return bool((mask & before).sum() >= self.min_overlap * min(area, area_before))


def likeness(grey: np.ndarray, mask: np.ndarray, reference: np.ndarray) -> float:
    """Overlap in [0, 1] of the grey-value histogram inside a mask with a reference histogram."""
    return float(np.minimum(histogram(grey, mask), reference).sum())


def histogram(grey: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Smoothed share of grey values inside a mask: (32,) from an (H, W) or (H, W, 3) uint8 slice."""
    values = grey[mask] if grey.ndim == 2 else grey[mask].mean(axis=-1)
    counts = np.histogram(values, bins=32, range=(0, 256))[0].astype(float)
    counts = np.convolve(counts, [0.25, 0.5, 0.25], mode="same")
    return np.asarray(counts / max(counts.sum(), 1e-9))


def propagate(
    anchors: Mapping[int, np.ndarray],
    depth: int,
    predict: Predict,
    grey: Callable[[int], np.ndarray],
    rule: PropagationRule | None = None,
    found: Callable[[int, np.ndarray], None] = lambda k, mask: None,
) -> dict[int, np.ndarray]:
    """Propagate masks from prompted slices to their neighbours in both directions.

    Args:
        anchors: Masks (H, W) of the prompted slices by slice index; a slice between two anchors is reached
            from the nearer one.
        depth: Number of slices.
        predict: Function that returns the mask of slice k for a prompt.
        grey: Function that returns the 8-bit image of slice k.
        rule: The stop rule, or None for its default values.
        found: Function called with each propagated mask as soon as it belongs to the object.

    Returns:
        Masks of all slices that show the object, the anchors among them, by slice index.
    """
    rule = rule or PropagationRule()
    masks = {k: mask for k, mask in anchors.items() if mask.any()}
    ordered = sorted(masks)
    for n, anchor in enumerate(ordered):
        below = (ordered[n - 1] + anchor) // 2 if n else -1
        above = (anchor + ordered[n + 1]) // 2 if n + 1 < len(ordered) else depth - 1
        reference = histogram(grey(anchor), masks[anchor])
        for ks in (range(anchor + 1, above + 1), range(anchor - 1, below, -1)):
            before = largest_component(masks[anchor])
            for k in ks:
                mask = largest_component(predict(k, box_around(before, rule.margin)))
                if not rule.holds(mask, before) or likeness(grey(k), mask, reference) < rule.min_likeness:
                    break
                masks[k] = before = mask
                found(k, mask)
    return masks


def box_around(mask: np.ndarray, margin: int) -> SlicePrompt:
    """The tight box of a mask (H, W), widened by `margin` px and clipped to the slice, with the mask."""
    x0, y0, x1, y1 = slice_box(mask)
    height, width = mask.shape
    return SlicePrompt(
        box=(
            max(x0 - margin, 0.0),
            max(y0 - margin, 0.0),
            min(x1 + margin, width - 1.0),
            min(y1 + margin, height - 1.0),
        ),
        mask=mask,
    )
