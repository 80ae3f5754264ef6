"""How thoroughly images are looked at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ScorerConfig:
    """How thoroughly an image is looked at.

    Attributes:
        slices: of a volume, at most.
        objects: of a slice, at most.
        jitters: further drawings of each box.
        jitter: most that a side of a box moves, as share of the box.
        grid: clicks per side where objects are sought by clicks.
        passes: with dropout, where the method has any; 0 is off.
        augment: whether mirrored and darkened slices are segmented too, which costs two more encodes a slice.
        resolution: longer side of the masks that are compared, px.
        worst: share of the slices whose mean is the image's score.
        seed: of the jitter.
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
