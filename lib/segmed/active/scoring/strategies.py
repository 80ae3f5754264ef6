"""The strategies, and the function that ranks a pool of images by any of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from segmed.active.scoring.diversity import best_of_clusters, k_centre_greedy

REVIEW = "review"
Need = Literal["embedding", "probabilities", "prompts"]


@dataclass(frozen=True)
class CandidatePool:
    """N images of which some can be proposed.

    Attributes:
        images: Ids of the images in the order of the studies.
        available: Images (N,), boolean, that have no label and are free for the user.
        scores: Scores (N,) by quantity (see `Strategy.score`), NaN where unknown.
        embeddings: Embeddings (N, D), rows of NaN where unknown; None where there are none at all.
    """

    images: Sequence[str]
    available: np.ndarray
    scores: Mapping[str, np.ndarray] = field(default_factory=dict)
    embeddings: np.ndarray | None = None

    def __post_init__(self) -> None:
        columns = {"available": self.available, "embeddings": self.embeddings, **self.scores}
        for name, values in columns.items():
            if values is not None and len(values) != len(self.images):
                raise ValueError(
                    f"{name} has {len(values)} rows for {len(self.images)} images. Give one row each."
                )


Choose = Callable[[np.ndarray, int, np.ndarray, np.ndarray, np.ndarray | None], list[int]]


@dataclass(frozen=True)
class Strategy:
    """A way of choosing images.

    Attributes:
        name: Name by which viewers request it.
        title: Description for the viewers in one sentence.
        needs: Quantities that have to be computed for an image before.
        score: Quantity in `CandidatePool.scores` that it ranks by; "" for none.
        choose: Function that chooses by embeddings; None ranks by the score, or without one in the order of
            the pool.
    """

    name: str
    title: str
    needs: frozenset[Need] = frozenset()
    score: str = ""
    choose: Choose | None = None


def _core_set(
    embeddings: np.ndarray, count: int, covered: np.ndarray, candidates: np.ndarray, scores: np.ndarray | None
) -> list[int]:
    return k_centre_greedy(embeddings, count, covered, candidates)


STRATEGIES: dict[str, Strategy] = {
    s.name: s
    for s in (
        Strategy("random", "Any image: costs nothing and is hard to beat"),
        Strategy("sequential", "One after the other, in the order of the studies"),
        Strategy(REVIEW, "What `segmed batch review` found uncertain, disputed or outlying", score=REVIEW),
        Strategy("entropy", "Where the pixels are least certain", frozenset({"probabilities"}), "entropy"),
        Strategy(
            "bald",
            "Where passes with dropout, or several models, disagree",
            frozenset({"probabilities"}),
            "bald",
        ),
        Strategy(
            "tta", "Where the mirrored or darker image is segmented otherwise", frozenset({"prompts"}), "tta"
        ),
        Strategy(
            "jitter",
            "Where the mask depends on how exactly the box is drawn",
            frozenset({"prompts"}),
            "jitter",
        ),
        Strategy(
            "predicted_iou",
            "Where the model trusts its own mask least",
            frozenset({"prompts"}),
            "predicted_iou",
        ),
        Strategy(
            "core_set", "The image least like all labelled ones", frozenset({"embedding"}), choose=_core_set
        ),
        Strategy(
            "typicality",
            "The most typical image of a kind not labelled yet",
            frozenset({"embedding"}),
            "",
            best_of_clusters,
        ),
        Strategy(
            "hybrid",
            "The least certain image of a kind not labelled yet",
            frozenset({"embedding", "prompts"}),
            "jitter",
            best_of_clusters,
        ),
    )
}


def find_strategy(name: str) -> Strategy:
    """A strategy by name.

    Raises:
        ValueError: There is no strategy of this name.
    """
    if name not in STRATEGIES:
        raise ValueError(f"There is no strategy {name[:80]!r}. Take one of {', '.join(STRATEGIES)}.")
    return STRATEGIES[name]


def rank(
    strategy: str,
    pool: CandidatePool,
    count: int,
    seed: int | None = None,
    labelled: np.ndarray | None = None,
) -> list[str]:
    """The images to label next.

    Ties are broken at random. Images without scores follow in random order, so that a strategy works from the
    first image on, and like `random` until there are scores.

    Args:
        strategy: Name of the strategy.
        pool: Images to choose from.
        count: Largest number of images.
        seed: Seed of the random draws; None draws another order at each call.
        labelled: Images (N,), boolean, that are or will soon be labelled; strategies by embedding avoid
            images like them.

    Returns:
        Ids of the images, best first; fewer than `count` if fewer are available.

    Raises:
        ValueError: There is no such strategy, or `count` is below 1.
    """
    chosen = find_strategy(strategy)
    if count < 1:
        raise ValueError(f"{count} images cannot be proposed; ask for 1 or more.")
    covered = np.zeros(len(pool.images), bool) if labelled is None else np.asarray(labelled, bool)
    free = np.asarray(pool.available, bool) & ~covered
    order = _ordered(chosen, pool, count, np.random.default_rng(seed), covered, free)
    return [pool.images[n] for n in order[:count]]


def missing(strategy: str, pool: CandidatePool) -> str:
    """Why the strategy can only choose at random so far, as a message for the user; "" if it need not.

    Raises:
        ValueError: There is no such strategy.
    """
    chosen = find_strategy(strategy)
    free = np.asarray(pool.available, bool)
    if chosen.score and not np.isfinite(_score(chosen, pool)[free]).any():
        return f"No image has a score for {chosen.name} yet, so this one was drawn at random."
    if chosen.choose and not _known(pool)[free].any():
        return "No image has been scored yet, so this one was drawn at random."
    return ""


def _ordered(
    strategy: Strategy,
    pool: CandidatePool,
    count: int,
    generator: np.random.Generator,
    covered: np.ndarray,
    free: np.ndarray,
) -> list[int]:
    chance = generator.permutation(len(pool.images))
    if strategy.name == "sequential":
        return [int(n) for n in np.flatnonzero(free)]
    score = _score(strategy, pool) if strategy.score else np.zeros(len(pool.images))
    known = free & np.isfinite(score)
    if strategy.choose and pool.embeddings is not None:
        placed = _known(pool)
        if known.any():  # where the model finds nothing there is no score, but perhaps a kind of its own
            score = np.nan_to_num(score, nan=float(np.nanmin(score)) - 1)
            known = free.copy()
        known &= placed
        # shuffled, so that the first of equals is any of them
        shuffled = strategy.choose(
            pool.embeddings[chance],
            count,
            (covered & placed)[chance],
            known[chance],
            score[chance] if strategy.score else None,
        )
        best = [int(chance[n]) for n in shuffled]
    elif strategy.choose:
        best = []
    else:
        rows = chance[known[chance]]
        best = [int(n) for n in rows[np.argsort(-score[rows], kind="stable")]]
    taken = set(best)
    return best + [int(n) for n in chance if free[n] and n not in taken][: max(count - len(best), 0)]


def _score(strategy: Strategy, pool: CandidatePool) -> np.ndarray:
    return pool.scores.get(strategy.score, np.full(len(pool.images), np.nan))


def _known(pool: CandidatePool) -> np.ndarray:
    if pool.embeddings is None:
        return np.zeros(len(pool.images), bool)
    return np.asarray(np.isfinite(pool.embeddings).all(1))
