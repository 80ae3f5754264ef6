"""The settings of scoring."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ScorerConfig:
    """How thoroughly an image is scored.

    Attributes:
        slices: Largest number of slices of a volume.
        objects: Largest number of objects of a slice.
        jitters: Number of jittered copies of each box.
        jitter: Largest shift of a side of a box, as a share of the box.
        grid: Number of clicks per side where objects are searched by clicks.
        passes: Number of passes with dropout, for methods that have any; 0 turns them off.
        augment: Whether mirrored and darkened slices are segmented too, which takes two more encodes per
            slice.
        resolution: Longer side of the compared masks in px.
        worst: Share of the slices whose mean is the image's score.
        seed: Seed of the jitter.
    """

    slices: int = 3
    objects: int = 3
    jitters: int = 3
    jitter: float = 0.1
    grid: int = 4
    passes: int = 4
    augment: bool = False
    resolution: int = 128
    worst: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("slices", 1), ("objects", 1), ("jitters", 1), ("grid", 1), ("resolution", 16)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; give {least} or more.")
        if self.passes < 0 or self.passes == 1:
            raise ValueError(f"passes is {self.passes}; give 2 or more for a comparison, or 0 for none.")
        if not 0 < self.jitter < 0.5 or not 0 < self.worst <= 1:
            raise ValueError(f"jitter {self.jitter} must be in (0, 0.5) and worst {self.worst} in (0, 1].")
