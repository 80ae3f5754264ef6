"""Selects the earlier labels to train on again beside the new ones, so that nothing is forgotten.

Sources: Vitter, Random Sampling with a Reservoir (1985), for samples of a stream; Chrysakis and Moens, Online
Continual Learning from Imbalanced Data (2020), for one reservoir per class; Rolnick et al., Experience Replay
for Continual Learning (2019), for its use. The draw of an image is a hash of its name, so that nothing has to
be remembered between two trainings, the sample changes little when images are added, and the order in which
they came does not matter."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping


def replay_set(earlier: Mapping[str, Collection[str]], size: int, seed: int = 0) -> list[str]:
    """A sample in which all classes occur on equally many images, as far as possible.

    Args:
        earlier: Names of the structures by image; images without any form a class of their own.
        size: Number of images to take.
        seed: Seed of the draw.

    Returns:
        At most `size` images; a larger sample begins with the images of a smaller one.

    Raises:
        ValueError: The size is negative.
    """
    if size < 0:
        raise ValueError(f"A replay set of {size} images is not possible; give 0 or more.")
    reservoirs: dict[str, list[str]] = {}
    draws = {image: hashlib.sha256(f"{seed} {image}".encode()).digest() for image in earlier}
    for image in sorted(earlier, key=lambda i: draws[i], reverse=True):  # the best draw last
        for name in set(earlier[image]) or {""}:
            reservoirs.setdefault(name, []).append(image)
    count = dict.fromkeys(reservoirs, 0)
    chosen: dict[str, None] = {}
    while len(chosen) < size and reservoirs:
        name = min(reservoirs, key=lambda n: (count[n], n))
        while reservoirs[name] and reservoirs[name][-1] in chosen:
            reservoirs[name].pop()
        if not reservoirs[name]:
            del reservoirs[name]
            continue
        image = reservoirs[name].pop()
        chosen[image] = None
        for each in set(earlier[image]) or {""}:
            count[each] += 1
    return list(chosen)
