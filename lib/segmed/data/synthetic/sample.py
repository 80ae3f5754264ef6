"""Synthetic images with known masks, without end, for the training of promptable models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from segmed.data.synthetic import colour, labels, layouts, modalities
from segmed.data.synthetic.acquisition import develop, limit_resolution, orient
from segmed.data.synthetic.canvas import CANDIDATES, LABELS, OUTSIDE, Canvas
from segmed.data.synthetic.draw import Draw
from segmed.data.synthetic.parts import add_crossings, add_tiny, choose_targets, keep_main_part, limit_view

FAMILIES: dict[str, Callable[[Draw, int, int], Canvas]] = {
    "noise": labels.draw_noise,
    "blobs": labels.draw_blobs,
    "primitives": labels.draw_primitives,
    "tubes": labels.draw_tubes,
    "shells": labels.draw_shells,
    "lobes": labels.draw_lobes,
    "lesions": labels.draw_lesions,
    "body": layouts.draw_body,
    "chest": layouts.draw_chest,
    "brain": layouts.draw_brain,
    "fundus": layouts.draw_fundus,
    "cells": layouts.draw_cells,
}
MODALITIES: dict[str, Callable[[Draw, Tensor, Tensor, Tensor], Tensor]] = {
    "grey": modalities.show_any,
    "ct": modalities.show_ct,
    "mr": modalities.show_mr,
    "ultrasound": modalities.show_ultrasound,
    "xray": modalities.show_xray,
    "endoscopy": colour.show_endoscopy,
    "dermoscopy": colour.show_dermoscopy,
    "fundus": colour.show_fundus,
    "fluorescence": colour.show_fluorescence,
    "brightfield": colour.show_brightfield,
}
# how often a family is shown in a modality; 1 where not given. Odd pairs are kept: they widen the domain
USUAL: dict[str, dict[str, float]] = {
    "body": {
        "ct": 8,
        "mr": 6,
        "xray": 3,
        "endoscopy": 0.2,
        "dermoscopy": 0.2,
        "fundus": 0.1,
        "brightfield": 0.3,
    },
    "chest": {"xray": 14, "ct": 2, "mr": 2, "endoscopy": 0.1, "dermoscopy": 0.1, "fundus": 0.1},
    "brain": {"mr": 12, "ct": 4, "endoscopy": 0.1, "dermoscopy": 0.1, "fundus": 0.1},
    "fundus": {"fundus": 25},
    "cells": {"fluorescence": 8, "brightfield": 14, "grey": 3},
    "lesions": {"dermoscopy": 8, "endoscopy": 6, "ultrasound": 6, "mr": 4},
    "shells": {"mr": 5, "ultrasound": 5, "ct": 3},
    "lobes": {"xray": 7, "ct": 3, "mr": 3, "ultrasound": 3},
    "blobs": {"endoscopy": 3, "ultrasound": 3, "ct": 3, "mr": 3, "brightfield": 2},
}
SCATTERED = ("noise", "blobs", "primitives", "lobes")  # families whose regions may fall into pieces
GREY = ("grey", "ct", "mr", "ultrasound", "xray")


@dataclass(frozen=True)
class PhantomConfig:
    """What is drawn.

    Attributes:
        families: of label maps, chosen alike.
        modalities: of appearance, chosen as they usually go with the family.
        targets: most targets of a sample, K.
        tiny_share: share of samples that get a target of 0.05 to 1 % of the picture.
        crossing_share: share of samples with vessels or granules across their regions.
    """

    families: tuple[str, ...] = tuple(FAMILIES)
    modalities: tuple[str, ...] = tuple(MODALITIES)
    targets: int = 6
    tiny_share: float = 0.27
    crossing_share: float = 0.5

    def __post_init__(self) -> None:
        for what, chosen, known in (
            ("families", self.families, FAMILIES),
            ("modalities", self.modalities, MODALITIES),
        ):
            wrong = [name for name in chosen if name not in known]
            if wrong or not chosen:
                raise ValueError(
                    f"{what} {wrong or chosen!r} cannot be drawn. Choose among {', '.join(known)}."
                )
        if not 1 <= self.targets <= 16:
            raise ValueError(f"targets {self.targets} must be between 1 and 16. Take 6 to begin with.")
        for share in ("tiny_share", "crossing_share"):
            if not 0 <= getattr(self, share) <= 1:
                raise ValueError(f"{share} {getattr(self, share)} must be between 0 and 1.")


@dataclass(frozen=True)
class PhantomBatch:
    """Pictures and what an annotator would outline in them.

    Attributes:
        images: (B, 3, S, S) float32 in [0, 1], of 8-bit depth; grey modalities have three equal channels.
        targets: (B, K, S, S) boolean; they may overlap, as a lesion and its core do.
        valid: (B, K) which targets there are; the others are empty. Each sample has at least one.
        families: per sample, how its label map came about.
        modalities: per sample, how it is shown.
    """

    images: Tensor
    targets: Tensor
    valid: Tensor
    families: tuple[str, ...]
    modalities: tuple[str, ...]


def generate(
    batch: int, size: int, seed: int, device: torch.device | str = "cpu", config: PhantomConfig | None = None
) -> PhantomBatch:
    """Draw a batch; the same arguments give the same tensors on the same device.

    Args:
        batch: samples, B.
        size: side S in px, at least 32.
        seed: any whole number.
        device: where everything is drawn.
        config: what is drawn.

    Raises:
        ValueError: a batch below 1 or a size below 32.
    """
    if batch < 1:
        raise ValueError(f"batch {batch} must be at least 1.")
    if size < 32:
        raise ValueError(f"size {size} px is too small for the shapes. Draw at 32 px or more.")
    config = config or PhantomConfig()
    families, shown_as = _choose(Draw(seed), batch, config)
    draw = Draw(seed, device)
    with torch.no_grad():
        return _generate(draw, batch, size, config, families, shown_as)


def _choose(draw: Draw, batch: int, config: PhantomConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Families and modalities of the samples, decided on the CPU so that a GPU is never waited for."""
    chosen = [config.families[n] for n in draw.integers(0, len(config.families), batch).tolist()]
    shown = []
    for family in chosen:
        weights = torch.tensor(
            [USUAL.get(family, {}).get(name, 1.0) for name in config.modalities], dtype=torch.float32
        )
        shown.append(config.modalities[int(torch.multinomial(weights, 1, generator=draw.generator))])
    return tuple(chosen), tuple(shown)


def _rows(names: tuple[str, ...], device: torch.device) -> dict[str, Tensor]:
    return {
        name: torch.tensor([n for n, other in enumerate(names) if other == name], device=device)
        for name in dict.fromkeys(names)
    }


def _generate(
    draw: Draw,
    batch: int,
    size: int,
    config: PhantomConfig,
    families: tuple[str, ...],
    shown_as: tuple[str, ...],
) -> PhantomBatch:
    device = draw.device
    regions = torch.zeros(batch, size, size, dtype=torch.uint8, device=device)
    vessels = torch.zeros(batch, size, size, dtype=torch.bool, device=device)
    kinds = torch.zeros(batch, LABELS, dtype=torch.int64, device=device)
    members = torch.zeros(batch, CANDIDATES, LABELS, dtype=torch.bool, device=device)
    weights = torch.zeros(batch, CANDIDATES, device=device)
    for family, rows in _rows(families, device).items():
        canvas = FAMILIES[family](draw, len(rows), size)
        regions[rows], kinds[rows] = canvas.labels, canvas.kinds
        members[rows], weights[rows] = canvas.candidates()
        if canvas.vessels is not None:
            vessels[rows] = canvas.vessels
    tiny = draw.chance(config.tiny_share, batch)
    add_tiny(draw, regions, kinds, tiny)
    own = torch.tensor([family in ("fundus", "brain") for family in families], device=device)
    add_crossings(draw, regions, draw.chance(config.crossing_share, batch) & ~own)
    regions += vessels * LABELS
    fan, lens = (
        torch.tensor([name in names for name in shown_as], device=device)
        for names in (("ultrasound",), ("fundus", "endoscopy", "dermoscopy"))
    )
    fan, lens = fan & draw.chance(0.6, batch), lens & draw.chance(0.4, batch)
    limit_view(draw, regions, fan, lens, draw.chance(0.25, batch) & ~fan & ~lens)
    targets, valid = choose_targets(draw, regions, members, weights, tiny, config.targets)
    loose = [n for n, family in enumerate(families) if family in SCATTERED]
    if loose:
        rows = torch.tensor(loose, device=device)
        targets[rows] = keep_main_part(targets[rows].flatten(0, 1)).unflatten(0, (len(loose), -1))
    small = (targets.sum((2, 3)) < 0.01 * size**2).logical_and(valid).any(1)
    images = torch.zeros(batch, 3, size, size, device=device)
    for name, rows in _rows(shown_as, device).items():
        images[rows] = MODALITIES[name](draw, regions[rows], kinds[rows], small[rows]).expand(-1, 3, -1, -1)
    images = limit_resolution(draw, images, small)
    grey = torch.tensor([name in GREY for name in shown_as], device=device)
    images = develop(draw, images, regions == OUTSIDE, small, grey)
    images, targets = orient(draw, images, targets)
    return PhantomBatch(images, targets, valid, families, shown_as)
