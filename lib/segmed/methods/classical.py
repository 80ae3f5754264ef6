"""A segmenter without weights: grey-value likelihoods with a spatial prior, and region growing.

The box part follows GrabCut (Rother et al., SIGGRAPH 2004): foreground and background histograms are refined
iteratively, with a soft ellipse as prior in place of the hard box and Gaussian smoothing of the log odds in
place of the graph cut, which degenerates on grey images. The click part is seeded region growing (Adams and
Bischof, PAMI 1994) with the tolerance that gives the clearest boundary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from skimage.segmentation import flood
from torch import Tensor

from segmed.imaging.labels.masks import largest_component, slice_box
from segmed.imaging.prompts import SlicePrompt
from segmed.methods.base.method import Parts
from segmed.methods.base.segmenter import Logits, Segmenter
from segmed.sam.embedding import Embedding
from segmed.sam.frame import Frame


@dataclass(frozen=True)
class ClassicalConfig:
    """The settings; `prior_weight` and `context` were chosen on real cases (`scripts/eval_prompts.py`).

    Attributes:
        bins: Grey-value bins of a histogram.
        rounds: Refinements of the histograms.
        prior_weight: Weight of the ellipse prior against the grey values.
        prior_softness: Width of the prior's edge in radii of the ellipse.
        mask_softness: Width of the edge of a previous mask as prior, as a share of the square root of its
            area.
        context: Width of the background around a box, as a share of the box's sides.
        smoothing: Standard deviation of the log-odds filter, as a share of the box's shorter side.
        max_area: Largest region grown from a click, as a share of the slice.
    """

    bins: int = 24
    rounds: int = 4
    prior_weight: float = 0.7
    prior_softness: float = 0.25
    mask_softness: float = 0.1
    context: float = 0.2
    smoothing: float = 0.04
    max_area: float = 0.35

    def __post_init__(self) -> None:
        if self.bins < 2 or self.rounds < 1:
            raise ValueError(
                f"bins is {self.bins}, which must be at least 2, and rounds is {self.rounds}, which must be "
                "at least 1."
            )
        if not 0 < self.max_area <= 1:
            raise ValueError(f"max_area is {self.max_area}; allowed are shares above 0 and up to 1.")


class Classical(Segmenter):
    """The fallback method without weights; slices are processed at their own resolution."""

    version = "classical-1"
    carries_mask = True

    def __init__(self, config: ClassicalConfig | None = None) -> None:
        super().__init__()
        self.config = config or ClassicalConfig()

    def encode(self, images: Tensor) -> Embedding:
        height, width = images.shape[2:]
        return Embedding(images, Frame(height, width, max(height, width)))

    def decode(
        self, embedding: Embedding, prompts: Sequence[Sequence[SlicePrompt]] | None, size: tuple[int, int]
    ) -> Logits:
        if prompts is None:
            raise ValueError("The classical method needs a box or a click on each slice.")
        rows = []
        for image, objects in zip(embedding.features, prompts, strict=True):
            grey = image.mean(0).numpy()
            rows.append(torch.stack([torch.from_numpy(self._segment(grey, p)) for p in objects]))
        logits = torch.stack(rows).float()
        return Logits(torch.nn.functional.interpolate(logits, size, mode="bilinear", align_corners=False))

    def _segment(self, grey: np.ndarray, prompt: SlicePrompt) -> np.ndarray:
        """Log odds (H, W) of the object from grey values (H, W) in [0, 1]."""
        mask_box = slice_box(prompt.mask) if prompt.mask is not None else None
        box = prompt.box or mask_box
        if box is not None:
            odds = self._from_box(grey, box, prompt)
        else:
            odds = self._from_clicks(grey, prompt)
        return _keep_clicked(odds, prompt)

    def _from_box(self, grey: np.ndarray, box: tuple[float, ...], prompt: SlicePrompt) -> np.ndarray:
        """Log odds (H, W) from a box, computed on a crop with some context around it; -10 elsewhere.

        The prior is (1 - r) / softness, with r the elliptic distance from the box's centre in half sides, or,
        with a previous mask, the signed distance to its edge over a width that grows with the mask.
        """
        x0, y0, x1, y1 = (round(v) for v in box)
        pad_x, pad_y = (max(4, round(self.config.context * (b - a + 1))) for a, b in ((x0, x1), (y0, y1)))
        top, left = max(y0 - pad_y, 0), max(x0 - pad_x, 0)
        crop = (slice(top, y1 + pad_y + 1), slice(left, x1 + pad_x + 1))
        image = grey[crop]
        yy, xx = np.mgrid[top : top + image.shape[0], left : left + image.shape[1]]
        radius_x, radius_y = (x1 - x0 + 1) / 2, (y1 - y0 + 1) / 2
        radius = np.hypot((xx - (x0 + x1) / 2) / radius_x, (yy - (y0 + y1) / 2) / radius_y)
        inside = (xx >= x0) & (xx <= x1) & (yy >= y0) & (yy <= y1)
        prior = np.clip((1 - radius) / self.config.prior_softness, -4, 4)
        if prompt.mask is not None:
            part = prompt.mask[crop]
            depth = ndimage.distance_transform_edt(part) - ndimage.distance_transform_edt(~part)
            prior = np.clip(depth / max(1.0, self.config.mask_softness * np.sqrt(part.sum())), -2, 2)
        hints = _hints(prompt, image.shape, (top, left), max(2.0, min(radius_x, radius_y) / 6))
        odds = self._refine(image, prior, inside, hints, min(x1 - x0, y1 - y0) + 1)
        out = np.full(grey.shape, -10.0)
        out[crop] = odds
        return out

    def _refine(
        self, image: np.ndarray, prior: np.ndarray, inside: np.ndarray, hints: np.ndarray, side: int
    ) -> np.ndarray:
        """Refine log odds of a crop (h, w) and keep the largest component, with holes filled.

        In each round the weight of a pixel is w = sigmoid(odds), its evidence is e = log h_in(v) / h_out(v)
        from histograms weighted by w and 1 - w, and odds = smooth(prior_weight · prior + clip(e, -3, 3) +
        hints).
        """
        config = self.config
        low, high = np.percentile(image, (0.5, 99.5))
        level = np.zeros(image.shape, int)
        if high > low:
            level = np.clip((image - low) / (high - low) * config.bins, 0, config.bins - 1).astype(int)
        odds = config.prior_weight * prior + hints
        weight = np.where(inside, 1 / (1 + np.exp(-np.clip(2 * odds, -20, 20))), 0)
        for _ in range(config.rounds):
            object_share = _histogram(level, weight, config.bins)
            rest_share = _histogram(level, 1 - weight, config.bins)
            evidence = np.log(object_share / rest_share)[level]
            odds = config.prior_weight * prior + np.clip(evidence, -3, 3) + hints
            odds = ndimage.gaussian_filter(odds, max(0.7, config.smoothing * side))
            odds = np.where(inside, odds, -10.0)
            weight = 1 / (1 + np.exp(-np.clip(odds, -20, 20)))
        mask = ndimage.binary_fill_holes(largest_component(odds > 0))
        if not mask.any():
            mask = inside & (prior > 0)
        return np.where(mask, np.maximum(odds, 0.1), np.minimum(odds, -0.1))

    def _from_clicks(self, grey: np.ndarray, prompt: SlicePrompt) -> np.ndarray:
        """Log odds (H, W): 2 inside the regions grown from the foreground clicks, -2 outside."""
        smooth = ndimage.gaussian_filter(grey, 1.0)
        edge = ndimage.gaussian_gradient_magnitude(grey, 1.0)
        region = np.zeros(grey.shape, bool)
        for x, y in prompt.foreground.round().astype(int):
            region |= self._grow(smooth, edge, (y, x), prompt.background.round().astype(int))
        region = ndimage.binary_fill_holes(
            ndimage.binary_opening(region, iterations=1) | (region & _near(prompt, region))
        )
        return np.where(region, 2.0, -2.0)

    def _grow(
        self, smooth: np.ndarray, edge: np.ndarray, seed: tuple[int, int], background: np.ndarray
    ) -> np.ndarray:
        """Grow a region from a seed; the tolerance maximises (mean edge strength on the rim) · log(area)."""
        best, best_score = np.zeros(smooth.shape, bool), -1.0
        spread = float(smooth.max() - smooth.min())
        if spread == 0:
            best[seed] = True
            return best
        limit = self.config.max_area * smooth.size
        for tolerance in np.geomspace(0.02, 0.5, 16) * spread:
            region = flood(smooth, seed, tolerance=tolerance)
            if region.sum() > limit or any(region[y, x] for x, y in background):
                break
            if region.sum() < 12:
                best = region if not best.any() else best
                continue
            filled = ndimage.binary_fill_holes(region)
            rim = filled & ~ndimage.binary_erosion(filled)
            score = float(edge[rim].mean()) * np.log(filled.sum())
            if score > best_score:
                best, best_score = filled, score
        return best


def _histogram(level: np.ndarray, weight: np.ndarray, bins: int) -> np.ndarray:
    """Weighted histogram (bins,) with sum 1, smoothed and mixed with a uniform share against empty bins."""
    counts = np.bincount(level.ravel(), weight.ravel(), bins)
    counts = ndimage.gaussian_filter1d(counts, 1.0) + 0.02 * counts.sum() / bins + 1e-6
    return np.asarray(counts / counts.sum())


def _hints(prompt: SlicePrompt, shape: tuple[int, ...], origin: tuple[int, int], reach: float) -> np.ndarray:
    """Log odds near clicks: the sum of ±6 exp(-d² / (2 reach²)) at distance d from each click."""
    yy, xx = np.mgrid[origin[0] : origin[0] + shape[0], origin[1] : origin[1] + shape[1]]
    hints = np.zeros(shape)
    for (x, y), label in zip(prompt.points, prompt.labels, strict=True):
        bump = 6 * np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / (2 * reach**2))
        hints += bump if label else -bump
    return hints


def _keep_clicked(odds: np.ndarray, prompt: SlicePrompt) -> np.ndarray:
    """Set the log odds at clicks, so that they keep their labels whatever the evidence is."""
    height, width = odds.shape
    for (x, y), label in zip(prompt.points.round().astype(int), prompt.labels, strict=True):
        if 0 <= x < width and 0 <= y < height:
            odds[y, x] = 2.0 if label else -2.0
    return odds


def _near(prompt: SlicePrompt, region: np.ndarray) -> np.ndarray:
    """Boolean map of 3 × 3 px around each foreground click, which the opening must not remove."""
    near = np.zeros(region.shape, bool)
    for x, y in prompt.foreground.round().astype(int):
        near[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2] = True
    return near


PARTS = Parts(lambda model, version: Classical())
