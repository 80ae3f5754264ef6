"""MedSAM: SAM with the preparation of slices that the MedSAM weights were trained with.

Source: Ma et al., Segment anything in medical images (Nature Communications, 2024).
"""

from __future__ import annotations

from typing import ClassVar

from segmed.methods.sam.sam import Sam
from segmed.sam.preparation import MEDSAM, Preparation


class MedSam(Sam):
    """SAM that answers a click with one mask, and with MedSAM's preparation if its weights declare none.

    The published weights were trained with boxes; clicks work through the frozen prompt encoder as an
    extension.
    """

    choose_best = False
    default_preparation: ClassVar[Preparation] = MEDSAM
