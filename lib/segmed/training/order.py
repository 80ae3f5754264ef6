"""A random order of slices in training for which each volume is read from disk only once per pass.

A buffer of slices is filled volume by volume, in random order of the volumes; each step takes slices out of
it at random and refills it. Successive steps thus mix slices of as many volumes as the buffer holds, and
memory is bounded by the buffer whatever the number of volumes. A buffer as large as the dataset gives a plain
shuffle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

T = TypeVar("T")


@dataclass(frozen=True)
class SliceOrder:
    """The order of one pass over a dataset.

    Attributes:
        stream: Numbers of slices in the order in which they are read, volume by volume.
        places: The same numbers in the order in which they are used for training.
        buffer: Number of slices in the buffer.
    """

    stream: tuple[int, ...]
    places: tuple[int, ...]
    buffer: int

    @classmethod
    def draw(cls, volumes: Sequence[int], buffer: int, seed: Sequence[int]) -> SliceOrder:
        """Draw the order of a pass, which depends on the seed only.

        Args:
            volumes: Number of the volume of each slice.
            buffer: Number of slices in the buffer, at least one.
            seed: Numbers of at least 0.
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
        """Read the slices at rising positions of `places`, only these, and keep none after its use.

        Args:
            load: Function that reads a slice by its number.
            positions: Rising positions in `places`.
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
