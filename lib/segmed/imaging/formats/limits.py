"""How large an image may be: told by its header, before anything is decoded."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import cache

import psutil

from segmed.imaging.formats.faults import ImageFault

_USUAL = 2**29  # voxels: 2,048 slices of 512 x 512
_MEMORY = (
    32  # bytes of the machine's memory for each voxel: reading takes up to 8 of them, four are read at once
)
_chosen: list[int] = []
_followers: list[Callable[[int], None]] = []


@cache
def usual_most_voxels() -> int:
    """Voxels that an image may have if nothing else is said: 2^29, or fewer on machines with less than 16
    GiB."""
    return int(min(_USUAL, psutil.virtual_memory().total // _MEMORY))


def most_voxels() -> int:
    """Voxels that an image may have in this process."""
    return _chosen[-1] if _chosen else usual_most_voxels()


def set_most_voxels(count: int | None) -> None:
    """Allow images of other sizes from now on in this process; None for the usual ones.

    Raises:
        ValueError: less than one voxel.
    """
    if count is not None and count < 1:
        raise ValueError(f"Images of at most {count} voxels are none. Give 1 or more.")
    _chosen[:] = [] if count is None else [count]


def follow_sizes(follower: Callable[[int], None]) -> None:
    """Have a function told of the voxels of each image in this process before they are decoded."""
    _followers.append(follower)


def check_size(sides: Iterable[int], name: str) -> None:
    """Refuse what is too large to be read.

    Args:
        sides: voxels along each axis, as the header tells them.
        name: of the file.

    Raises:
        ImageFault: there are more voxels than `most_voxels`.
    """
    counts = [max(0, int(side)) for side in sides]
    if math.prod(counts) > most_voxels():
        raise ImageFault(
            f"{name} has {' x '.join(map(str, counts))} voxels by its header, and at most {most_voxels():,} "
            "are read. Crop or resample it, or start the server with a larger --conf max_voxels."
        )
    for follow in _followers:
        follow(math.prod(counts))
