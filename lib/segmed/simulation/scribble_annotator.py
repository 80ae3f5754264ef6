"""A simulated annotator with scribbles: lines, centre lines and inner contours, warped at random.

The three kinds and the random warping and interruption follow Wong et al., ScribblePrompt (ECCV 2024). All
random draws come from a generator with the caller's seed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage
from skimage.draw import line
from skimage.morphology import disk, skeletonize

from segmed.imaging.labels.masks import bounding_box
from segmed.imaging.prompts import SlicePrompt
from segmed.simulation.slice_annotator import deepest

_PAD = 4  # margin in px around the region for warped strokes
_LINES = (1, 3)  # number of lines
_PAIRS = 12  # candidate pairs of ends per line
_DEPTH = (0.3, 0.7)  # depth of an inner contour, as a share of the largest depth
_STRAY = (0.0, 0.06)  # standard deviation of the warping, in square roots of the region's area
_KEPT = (0.4, 1.0)  # share of a stroke that remains after interruption
_WIDTH = (1, 3)  # width of strokes in px
_THIN = ndimage.generate_binary_structure(2, 2)


def line_strokes(region: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """One to three straight lines between pixels of a region (H, W), clipped to the region."""
    at = np.argwhere(region)
    out = np.zeros_like(region)
    for _ in range(int(generator.integers(_LINES[0], _LINES[1] + 1))):
        best, longest = np.zeros_like(region), 0
        for first, second in at[generator.integers(0, len(at), (_PAIRS, 2))]:
            drawn = np.zeros_like(region)
            drawn[line(*first, *second)] = True
            drawn &= region
            # Prefers long lines, but not always the longest.
            if drawn.sum() > longest * generator.uniform(1, 2):
                best, longest = drawn, int(drawn.sum())
        out |= best
    return out


def centre_strokes(region: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The skeleton of a region (H, W)."""
    return np.asarray(skeletonize(region))


def contour_strokes(region: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A contour inside a region (H, W), at a random depth between the edge and the deepest pixel."""
    depth = ndimage.distance_transform_edt(region)
    inner = depth >= max(1.0, float(generator.uniform(*_DEPTH)) * depth.max())
    return np.asarray(inner & ~ndimage.binary_erosion(inner))


KINDS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "line": line_strokes,
    "centre": centre_strokes,
    "contour": contour_strokes,
}


def scribble(region: np.ndarray, generator: np.random.Generator, kind: str | None = None) -> np.ndarray:
    """Draw strokes in a region, warped, interrupted and 1 to 3 px wide.

    Args:
        region: The region (H, W), boolean and not empty, to which strokes are clipped.
        generator: A random generator; the same seed gives the same strokes.
        kind: One of `KINDS`, or None for a random kind.

    Returns:
        The strokes (H, W), boolean, with at least one pixel.

    Raises:
        ValueError: If the region is empty, or the kind is unknown.
    """
    found = bounding_box(region)
    if found is None:
        raise ValueError("Nothing can be scribbled into an empty region. Give one with at least one pixel.")
    if kind is not None and kind not in KINDS:
        raise ValueError(f"There are no scribbles of the kind {kind!r}. Choose from {', '.join(KINDS)}.")
    (y0, y1), (x0, x1) = found
    own = np.pad(region[y0 : y1 + 1, x0 : x1 + 1], _PAD)
    drawn = KINDS[kind or [*KINDS][generator.integers(len(KINDS))]](own, generator)
    drawn = _broken(_warped(drawn, float(np.sqrt(own.sum())), generator) & own, generator)
    width = int(generator.integers(_WIDTH[0], _WIDTH[1] + 1))
    if width > 1:
        drawn = ndimage.binary_dilation(drawn, disk(1) if width == 3 else np.ones((2, 2), bool)) & own
    out = np.zeros_like(region)
    out[y0 : y1 + 1, x0 : x1 + 1] = drawn[_PAD:-_PAD, _PAD:-_PAD]
    if not out.any():  # the whole stroke was warped out of the region
        x, y = deepest(region)
        out[y, x] = True
    return out


def with_scribble(
    prompt: SlicePrompt | None,
    found: np.ndarray | None,
    truth: np.ndarray,
    generator: np.random.Generator,
    kind: str | None = None,
) -> SlicePrompt:
    """Add a scribble to a prompt.

    Args:
        prompt: The prompt so far, or None.
        found: The predicted mask (H, W), boolean, or None before the first prediction.
        truth: The true mask (H, W), boolean.
        generator: A random generator.
        kind: One of `KINDS`, or None for a random kind.

    Returns:
        The prompt with a scribble on the object at first, then in the deepest connected part that is missed
        or extra; newer strokes replace older ones where they cross. The same prompt if nothing is wrong.
    """
    missed = truth if found is None else truth & ~found
    extra = np.zeros_like(truth) if found is None else found & ~truth
    if not missed.any() and not extra.any():
        assert prompt is not None
        return prompt
    depths = [ndimage.distance_transform_edt(np.pad(error, 1)).max() for error in (missed, extra)]
    into = bool(depths[0] >= depths[1])
    error = missed if into else extra
    if found is not None:
        x, y = deepest(error)
        parts, _ = ndimage.label(error, _THIN)
        error = parts == parts[y, x]
    strokes = np.zeros(truth.shape, np.int8)
    if prompt is not None and prompt.scribbles is not None:
        strokes = prompt.scribbles.copy()
    strokes[scribble(error, generator, kind)] = 1 if into else -1
    if prompt is None:
        return SlicePrompt(scribbles=strokes)
    return SlicePrompt(prompt.box, prompt.points, prompt.labels, prompt.mask, strokes)


def _warped(drawn: np.ndarray, side: float, generator: np.random.Generator) -> np.ndarray:
    """Warp a line (H, W) by smooth random displacements; `side` is that of the region in px."""
    stray = float(generator.uniform(*_STRAY)) * side
    noise = generator.standard_normal((2, *drawn.shape))
    smooth = ndimage.gaussian_filter(noise, (0, max(2.0, side / 6), max(2.0, side / 6)))
    spread = float(smooth.std())
    if stray < 0.5 or spread < 1e-9:
        return drawn
    moved = np.mgrid[: drawn.shape[0], : drawn.shape[1]] + smooth * (stray / spread)
    thick = ndimage.binary_dilation(drawn, _THIN).astype(np.float32)
    return np.asarray(skeletonize(ndimage.map_coordinates(thick, moved, order=1) > 0.5))


def _broken(drawn: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Interrupt a line (H, W) at random by smooth noise."""
    kept = float(generator.uniform(*_KEPT))
    lifted = ndimage.gaussian_filter(generator.standard_normal(drawn.shape), 3.0)
    if not drawn.any():
        return drawn
    return np.asarray(drawn & (lifted <= np.quantile(lifted[drawn], kept)))
