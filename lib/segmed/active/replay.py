"""Which earlier labels are learnt again beside the new ones, so that what was learnt is not forgotten.

Sources: Vitter, Random Sampling with a Reservoir (1985), for samples of a stream; Chrysakis and Moens, Online Continual
Learning from Imbalanced Data (2020), for one reservoir per class; Rolnick et al., Experience Replay for Continual
Learning (2019), for its use. The draw of an image is a hash of its name, so that nothing has to be remembered between
two trainings, the sample changes little when images are added, and the order in which they came does not matter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping


def replay_set(earlier: Mapping[str, Collection[str]], size: int, seed: int = 0) -> list[str]:
    """A sample in which each class is on as many images as any other, as far as there are so many.

    Args:
        earlier: names of the structures by image; images without any are a class of their own.
        size: how many images to take.
        seed: of the draw.

    Returns:
        Images, at most `size`; those of a smaller size come first in one of a larger size.

    Raises:
        ValueError: a negative size.
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
