"""What an annotator does with a case: corrects what is proposed until it is the truth; clicks and minutes of
it."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

OPENING = 10.0  # s to open a picture, look at it and submit
CLICK = 1.5  # s
_SPACING = 6.0  # px of an outline between two clicks
_FEWEST = 3  # clicks of a polygon
_SPECK = 4  # px; smaller errors are left alone


@dataclass(frozen=True)
class Effort:
    """What a case took.

    Attributes:
        clicks: made.
        seconds: simulated.
    """

    clicks: int
    seconds: float


def effort(proposal: np.ndarray | None, truth: np.ndarray, classes: Collection[int]) -> Effort:
    """How long it takes to make a label map of a proposal.

    Each connected error of a structure of 4 px and more is outlined with a click every 6 px, three at least.
    Where that takes more clicks than outlining the structure again, that is done instead; a structure that is
    not there is deleted with one click. Opening, looking and submitting take 10 s, a click 1.5 s. It is a
    model of ours: numbers tell strategies apart and are no working hours.

    Args:
        proposal: (H, W) labels, or None.
        truth: (H, W) likewise.
        classes: label values that count.
    """
    clicks = 0
    for value in classes:
        wanted = truth == value
        anew = _outline(wanted)
        clicks += anew if proposal is None else min(max(anew, 1), _outline(wanted ^ (proposal == value)))
    return Effort(clicks, OPENING + CLICK * clicks)


def _outline(mask: np.ndarray) -> int:
    """Clicks to outline each part of a mask."""
    parts, count = ndimage.label(mask)
    clicks = 0
    for n in range(1, count + 1):
        part = parts == n
        if np.count_nonzero(part) >= _SPECK:
            rim = np.count_nonzero(part & ~ndimage.binary_erosion(part))
            clicks += max(_FEWEST, math.ceil(rim / _SPACING))
    return clicks
