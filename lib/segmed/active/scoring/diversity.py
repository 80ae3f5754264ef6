"""Selection of representative images from one embedding per image: covering, density and clusters.

Distances are Euclidean. The functions choose among thousands of images while a user waits, so the costly ones
use a sample or fewer dimensions where the exact answer would take too long; their descriptions say so."""

from __future__ import annotations

import numpy as np
from scipy.cluster.vq import kmeans2

_EXACT = 3e8  # multiplications for a distance table above which dimensions are reduced
_REDUCED = 48  # dimensions after the reduction
_SAMPLE = 1000  # images that clusters are found with, and that density is measured against
_DRAWS = 6  # candidates for a centre, of which the best is taken
_EACH = 3  # images far from each other that a cluster is found with
_TYPICAL = 2000  # images of a cluster whose density is measured
_BLOCK = 512  # rows or columns of a table of distances that fit in a cache


def k_centre_greedy(
    embeddings: np.ndarray, count: int, covered: np.ndarray, candidates: np.ndarray
) -> list[int]:
    """Core-set selection: repeatedly the image that is farthest from all labelled or chosen ones.

    Cost: no decodes, 1 encode per image; N × L distances. Source: Sener and Savarese, Active Learning for
    Convolutional Neural Networks: A Core-Set Approach (2018), its greedy 2-approximation. Where the table of
    distances would be large, embeddings are projected at random (Johnson and Lindenstrauss, 1984).

    Args:
        embeddings: Embeddings (N, D), finite.
        count: Number of images to choose.
        covered: Images (N,), boolean, that need no other one like them, such as labelled ones.
        candidates: Images (N,), boolean, that can be chosen.

    Returns:
        Rows of the chosen images, best first, fewer than `count` if there are not so many candidates. If no
        image is covered, the first one is the nearest to the mean.
    """
    rows = np.flatnonzero(candidates)
    count = min(count, len(rows))
    if not count:
        return []
    points = np.asarray(embeddings, np.float32)
    if points.shape[1] > _REDUCED and float(len(rows)) * np.count_nonzero(covered) * points.shape[1] > _EXACT:
        points = points @ _projection(points.shape[1], _REDUCED)
    pool, centres = points[rows], points[covered]
    if len(centres):
        distance = _nearest(pool, centres)
    else:
        distance = -((pool - pool.mean(0)) ** 2).sum(1)  # so that the nearest to the mean comes first
    # distance (P,): d_i = min over covered and chosen c of |x_i - x_c|^2, updated with each choice
    chosen: list[int] = []
    for _ in range(count):
        best = int(distance.argmax())
        chosen.append(int(rows[best]))
        new = ((pool - pool[best]) ** 2).sum(1)
        distance = new if not len(centres) and len(chosen) == 1 else np.minimum(distance, new)
        distance[best] = -1
    return chosen


def typicality(embeddings: np.ndarray, neighbours: int = 20) -> np.ndarray:
    """The number of similar images, as the inverse mean distance to the nearest neighbours.

    Cost: no decodes, 1 encode per image. Source: Hacohen, Dekel and Weinshall, Active Learning on a Budget:
    Opposite Strategies Suit High and Low Budgets (2022), with their 20 neighbours. Of more than 1000 images
    the neighbours are sought in a sample of 1000, and correspondingly fewer of them.

    Args:
        embeddings: Embeddings (N, D), finite.
        neighbours: Number of nearest neighbours, at most N - 1.

    Returns:
        Typicality (N,), positive; infinite where the neighbours are copies.
    """
    points = np.asarray(embeddings, np.float32)
    if len(points) < 2:
        return np.ones(len(points))
    sample = _sampled(len(points))
    share = len(sample) / len(points)
    wanted = min(max(round(neighbours * share), 1), len(sample) - 1)
    # per block of rows (B, D): distances (B, S) to the sample, of which the k smallest are averaged
    own = np.full(len(points), -1)  # index of a point in the sample, so that it is no neighbour of itself
    own[sample] = np.arange(len(sample))
    mean = np.empty(len(points))
    for start in range(0, len(points), _BLOCK):
        rows = slice(start, start + _BLOCK)
        squared = _squared_distances(points[rows], points[sample])
        inside = np.flatnonzero(own[rows] >= 0)
        squared[inside, own[rows][inside]] = np.inf
        squared.partition(wanted - 1, axis=1)
        mean[rows] = np.sqrt(squared[:, :wanted].clip(min=0)).mean(1)
    with np.errstate(divide="ignore"):
        return np.asarray(1 / mean)


def clusters(embeddings: np.ndarray, count: int, even: bool = False) -> np.ndarray:
    """k-means clusters with distant starting centres, computed from up to 1000 images.

    Source: Arthur and Vassilvitskii, k-means++: The advantages of careful seeding (2007), its greedy form, in
    which the best of several draws becomes the next centre.

    Args:
        embeddings: Embeddings (N, D), finite.
        count: Number of clusters, at most N; there are fewer where embeddings coincide.
        even: Whether to compute the clusters from images that lie far from each other, three to a cluster.
            Otherwise many follow-ups of a patient, or frames of a clip, form as many clusters as all other
            images together.

    Returns:
        Number (N,) of the cluster of each image; equal embeddings give equal clusters.
    """
    points = np.asarray(embeddings, np.float32)
    sample = points[_sampled(len(points))]
    if even:
        everyone = np.ones(len(sample), bool)
        sample = sample[k_centre_greedy(sample, _EACH * count, ~everyone, everyone)]
    # k-means++: the next centre is drawn with probability d_i^2 / sum d^2 from the sample (S, D)
    generator = np.random.default_rng(0)
    centres = sample[generator.integers(len(sample))][None]
    distance = ((sample - centres[0]) ** 2).sum(1)
    while len(centres) < min(count, len(sample)) and (total := float(distance.sum(dtype=np.float64))) > 0:
        draws = np.searchsorted(np.cumsum(distance, dtype=np.float64), generator.random(_DRAWS) * total)
        tried = np.minimum(distance, _squared_distances(sample[draws], sample).clip(min=0))
        best = int(tried.sum(1).argmin())
        centres, distance = np.concatenate([centres, sample[draws[best]][None]]), tried[best]
    centres, _ = (
        kmeans2(sample, centres, iter=8, minit="matrix", missing="warn") if len(centres) > 1 else (centres, 0)
    )
    # argmin_c |x - c|^2 = argmin_c (|c|^2 - 2 x.c), (N, K), as |x|^2 is the same for all centres
    return np.asarray(((centres**2).sum(1) - 2 * (points @ centres.T)).argmin(1))


def best_of_clusters(
    embeddings: np.ndarray,
    count: int,
    covered: np.ndarray,
    candidates: np.ndarray,
    scores: np.ndarray | None = None,
) -> list[int]:
    """One image from each of the clusters with the fewest labels, the largest cluster first.

    Cost: no decodes, 1 encode per image, and what the scores cost. With typicality it is TypiClust (Hacohen
    et al., 2022); with uncertainty it keeps a batch from repeating one uncertain kind of image (Zhdanov,
    Diverse mini-batch Active Learning, 2019), and clusters are even, because frequency does not matter then.
    The number of clusters is that of labels and choices together, at most 40.

    Args:
        embeddings: Embeddings (N, D), finite.
        count: Number of images to choose.
        covered: Labelled images (N,), boolean.
        candidates: Images (N,), boolean, that can be chosen.
        scores: Scores (N,), of which the highest in a cluster wins; None takes the typicality among the
            cluster's images.

    Returns:
        Rows of the chosen images, best first, fewer than `count` if there are not so many candidates.
    """
    most = 40
    left = candidates.copy()
    count = min(count, int(left.sum()))
    if not count:
        return []
    involved = np.flatnonzero(candidates | covered)
    cluster = np.full(len(embeddings), -1)
    wanted = min(int(covered.sum()) + count, most, len(involved))
    cluster[involved] = clusters(embeddings[involved], wanted, even=scores is not None)
    groups = int(cluster.max()) + 1
    labelled = np.bincount(cluster[covered], minlength=groups)
    size = np.bincount(cluster[involved], minlength=groups)
    chosen: list[int] = []
    while len(chosen) < count:
        open_ = np.bincount(cluster[left], minlength=groups) > 0
        group = min(np.flatnonzero(open_), key=lambda g: (labelled[g], -size[g]))
        members = np.flatnonzero(cluster == group)
        if scores is None:  # the sample always includes an image that can be chosen
            members = np.union1d(members[_sampled(len(members), _TYPICAL)], members[left[members]][:1])
        member_scores = typicality(embeddings[members]) if scores is None else scores[members]
        best = int(members[np.where(left[members], member_scores, -np.inf).argmax()])
        chosen.append(best)
        left[best] = False
        labelled[group] += 1
    return chosen


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N, M)"""
    table = a @ b.T
    table *= -2
    table += (a**2).sum(1)[:, None]
    table += (b**2).sum(1)
    return np.asarray(table)


def _nearest(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Squared distance of each point (N, D) to the nearest centre, in blocks that fit in a cache."""
    best = np.full(len(points), np.inf, np.float32)
    for start in range(0, len(centres), _BLOCK):
        np.minimum(best, _squared_distances(points, centres[start : start + _BLOCK]).min(1), out=best)
    return best


def _projection(dimensions: int, kept: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((dimensions, kept)).astype(np.float32) / np.float32(
        kept**0.5
    )


def _sampled(count: int, most: int = _SAMPLE) -> np.ndarray:
    if count <= most:
        return np.arange(count)
    return np.random.default_rng(0).choice(count, most, replace=False)
