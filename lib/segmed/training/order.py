"""In which order slices are learnt from: by chance, yet each volume is read from disk once per pass.

A buffer of slices is filled volume by volume, the volumes in random order; each step takes slices out of it by chance
and as many follow. Neighbouring steps see slices of as many volumes as the buffer holds, and memory is bounded by it
whatever the number of volumes. A buffer as large as the dataset is a plain shuffle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

T = TypeVar("T")


@dataclass(frozen=True)
class SliceOrder:
    """One pass over a dataset.

    Attributes:
        stream: numbers of slices in the order in which they are read, volume by volume.
        places: the same numbers in the order in which they are learnt from.
        buffer: slices that are held.
    """

    stream: tuple[int, ...]
    places: tuple[int, ...]
    buffer: int

    @classmethod
    def draw(cls, volumes: Sequence[int], buffer: int, seed: Sequence[int]) -> SliceOrder:
        """A pass that the seed decides.

        Args:
            volumes: the volume of each slice.
            buffer: slices that are held, at least one.
            seed: numbers of at least 0.
        """
        random = np.random.default_rng(list(seed))
        rank = random.permutation(max(volumes) + 1)
        stream = sorted(range(len(volumes)), key=lambda n: (rank[volumes[n]], n))
        held, places = stream[:buffer], []
        draws = random.random(len(stream))
        for step in range(len(stream)):
            place = int(draws[step] * len(held))
            places.append(held[place])
            if step + buffer < len(stream):
                held[place] = stream[step + buffer]
            else:
                held[place] = held[-1]
                held.pop()
        return cls(tuple(stream), tuple(places), buffer)

    def read(self, load: Callable[[int], T], positions: Sequence[int]) -> Iterator[T]:
        """Slices at rising positions of `places`; none but these is loaded, none is kept after its turn.

        Args:
            load: reads a slice by its number.
            positions: rising.
        """
        wanted = {self.places[p] for p in positions}
        held: dict[int, T] = {}
        entered = 0
        for position in positions:
            while entered < min(len(self.stream), position + self.buffer):
                if (place := self.stream[entered]) in wanted:
                    held[place] = load(place)
                entered += 1
            yield held.pop(self.places[position])
