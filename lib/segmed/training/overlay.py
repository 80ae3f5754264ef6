"""Validation cases as one image: true outlines in green, predicted ones in red."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from skimage.segmentation import find_boundaries
from skimage.transform import resize
from skimage.util import montage

from segmed.training.validation import ShownCase

_SIDE = 256  # side of the tile of a case in px
_TRUTH, _FOUND, _BOTH = (0, 220, 0), (255, 40, 40), (255, 220, 0)


def overlay_sheet(cases: Sequence[ShownCase]) -> np.ndarray:
    """Draw outlines on slices, side by side: (H, W, 3) uint8. Common pixels of both outlines are yellow.

    Args:
        cases: The cases, at least one.
    """
    tiles = [_tile(case) for case in cases]
    columns = min(4, len(tiles))
    return montage(
        np.stack(tiles), grid_shape=(-(-len(tiles) // columns), columns), channel_axis=-1, fill=(0, 0, 0)
    )


def _tile(case: ShownCase) -> np.ndarray:
    height, width = case.truth.shape
    scale = _SIDE / max(height, width)
    size = max(1, round(height * scale)), max(1, round(width * scale))
    grey = case.image if case.image.ndim == 3 else np.repeat(case.image[..., None], 3, -1)
    picture = resize(grey, (*size, 3), order=1, preserve_range=True).astype(np.uint8)
    truth, found = (
        find_boundaries(resize(labels, size, order=0, preserve_range=True, anti_aliasing=False), mode="inner")
        for labels in (case.truth, case.found)
    )
    for outline, colour in ((truth, _TRUTH), (found, _FOUND), (truth & found, _BOTH)):
        picture[outline] = colour
    tile = np.zeros((_SIDE, _SIDE, 3), np.uint8)
    tile[: size[0], : size[1]] = picture
    return tile
