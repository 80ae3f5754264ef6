"""What a label map is painted on: labels, what each of them is, and which unions of them an annotator would
box."""

from __future__ import annotations

from enum import IntEnum

import torch
from torch import Tensor

from segmed.data.synthetic.draw import Draw
from segmed.data.synthetic.noise import column, smooth_noise

LABELS = 32  # of regions; the same number again for the parts of them that a vessel or a granule crosses
OUTSIDE = 2 * LABELS  # beyond the field of view
TINY = LABELS - 1  # kept free by every family
CANDIDATES = 56


class Kind(IntEnum):
    """What a region is made of; each modality shows the kinds in its own brightness or colour."""

    AIR = 0
    TISSUE = 1
    FAT = 2
    BONE = 3
    ORGAN = 4
    FLUID = 5
    GAS = 6
    LESION = 7
    CORE = 8
    RIM = 9
    NUCLEUS = 10
    CYTOPLASM = 11


class Canvas:
    """Label maps of several samples of one family, painted region after region.

    Args:
        draw: source of randomness.
        count: samples, B.
        size: side S in px.
        ground: what label 0 is, one kind or one per sample, (B,).

    Attributes:
        labels: (B, S, S) uint8.
        kinds: (B, LABELS) of `Kind`.
        members: per candidate target its labels, its weight, and the samples that offer it.
        vessels: (B, S, S) what crosses the regions without bounding them; None where the family draws none.
    """

    def __init__(self, draw: Draw, count: int, size: int, ground: Kind | Tensor = Kind.TISSUE) -> None:
        self.draw, self.count, self.size = draw, count, size
        self.labels = torch.zeros(count, size, size, dtype=torch.uint8, device=draw.device)
        self.kinds = torch.ones(count, LABELS, dtype=torch.int64, device=draw.device) * Kind.ORGAN
        self.kinds[:, 0] = ground
        self.members: list[tuple[tuple[int, ...], float, Tensor | None]] = []
        self.vessels: Tensor | None = None
        self.used = 0
        self.ripples = smooth_noise(draw, count, size, 6, 4)
        self.fine = smooth_noise(draw, count, size, 16, 2)

    def paint(self, mask: Tensor, kind: Kind | Tensor, label: int = 0) -> int:
        """Give the pixels of the mask (B, S, S) the next free label, or the one named."""
        if not label:
            self.used = label = self.used + 1
            if label >= TINY:
                raise RuntimeError(f"a family painted more than {TINY - 1} labels")
        self.labels.masked_fill_(mask, label)
        self.kinds[:, label] = kind
        return label

    def offer(self, *labels: int, weight: float = 1.0, only: Tensor | None = None) -> None:
        """Offer a union of labels as a target, in all samples or in those of the mask `only`, (B,)."""
        self.members.append((labels, weight, only))

    def ripple(self, index: int) -> Tensor:
        """One of the noises that borders are perturbed with, (B, S, S)."""
        return self.ripples[:, index % 4] + 0.35 * self.fine[:, index % 2]

    def object(
        self, field: Tensor, kind: Kind | Tensor, index: int, where: Tensor | None = None
    ) -> tuple[int, ...]:
        """Paint an object that may have a rim and a core, and offer it whole; the core is offered as well.

        Without parts of other brightness a model learns to return the brightest part of what it is shown.

        Args:
            field: (B, S, S) normalised radius, 1 on the border.
            kind: of its body.
            index: number of the object, which chooses the perturbation of its core.
            where: (B, S, S) pixels that may be painted; all if not given.
        """
        draw, count = self.draw, self.count
        inside = field < 1 if where is None else (field < 1) & where
        body = self.paint(inside, kind)
        parts = column(draw.uniform(0, 1, count))
        edge = 1 - column(draw.uniform(0.06, 0.3, count))
        rim = self.paint(inside & (field > edge) & (parts < 0.3), Kind.RIM)
        depth = column(draw.uniform(0.3, 0.8, count))
        hollow = field + 0.25 * self.ripple(index + 1)
        core = self.paint(inside & (hollow < depth) & (parts > 0.2) & (parts < 0.55), Kind.CORE)
        self.offer(body, rim, core)
        self.offer(core, weight=0.15)
        return body, rim, core

    def candidates(self) -> tuple[Tensor, Tensor]:
        """Members (B, CANDIDATES, LABELS) boolean and weights (B, CANDIDATES) of what was offered."""
        members = torch.zeros(CANDIDATES, LABELS, dtype=torch.bool)
        weights = torch.zeros(CANDIDATES)
        for row, (labels, weight, _) in enumerate(self.members):
            members[row, list(labels)] = True
            weights[row] = weight
        shared = weights.to(self.draw.device).repeat(self.count, 1)
        for row, (_, _, only) in enumerate(self.members):
            if only is not None:
                shared[:, row] *= only
        return members.to(self.draw.device).expand(self.count, -1, -1), shared
