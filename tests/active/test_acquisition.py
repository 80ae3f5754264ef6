"""Numbers worked out by hand, and choices that can only be right or wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
from segmed.active.scoring.diversity import best_of_clusters, clusters, k_centre_greedy, typicality
from segmed.active.scoring.strategies import STRATEGIES, CandidatePool, missing, rank
from segmed.active.scoring.uncertainty import (
    bald,
    bald_of_variance,
    predicted_error,
    predictive_entropy,
    prompt_disagreement,
    vote_entropy,
)


def test_entropy_counts_where_an_object_may_be() -> None:
    p = np.zeros((10, 10))
    assert predictive_entropy(p) == 0.0
    p[0, 0], p[0, 1] = 0.5, 1.0
    assert predictive_entropy(p) == pytest.approx(0.5)  # the 98 certain background pixels do not dilute it
    uniform = np.full((4, 3, 3), 0.25)
    assert predictive_entropy(uniform) == pytest.approx(1.0)


def test_bald_is_disagreement_and_not_doubt() -> None:
    doubt = np.full((2, 4, 4), 0.5)
    assert bald(doubt) == pytest.approx(0.0)
    opposed = np.stack([np.ones((4, 4)), np.zeros((4, 4))])
    assert bald(opposed) == pytest.approx(1.0)
    half = np.stack([np.full((2, 2), 0.9), np.full((2, 2), 0.5)])

    def h(p: float) -> float:
        return -(p * math.log2(p) + (1 - p) * math.log2(1 - p))

    assert bald(half) == pytest.approx(h(0.7) - (h(0.9) + h(0.5)) / 2)


def test_bald_of_variance_is_its_second_order() -> None:
    samples = np.stack([np.full((2, 2), 0.42), np.full((2, 2), 0.38)])
    found = bald_of_variance(samples.mean(0), samples.var(0))
    assert found == pytest.approx(bald(samples), rel=0.01)
    assert found > 0


def test_votes_and_disagreement() -> None:
    a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    a[0], b[0, :2] = True, True
    assert vote_entropy(np.stack([a, b])) == pytest.approx(0.5)  # two of four covered pixels are split
    assert prompt_disagreement(np.stack([a, b])) == pytest.approx(1 - 2 * 2 / 6)
    assert prompt_disagreement(np.stack([a, a, b])) == pytest.approx((0 + 1 / 3 + 1 / 3) / 3, abs=1e-6)
    assert prompt_disagreement(np.zeros((3, 4, 4), bool)) == 0.0
    assert prompt_disagreement(np.stack([a, ~a])) == 1.0
    assert vote_entropy(np.zeros((2, 4, 4), bool)) == 0.0
    assert predicted_error(1.2) == 0.0
    assert predicted_error(0.7) == pytest.approx(0.3)


@pytest.mark.parametrize("function", [bald, vote_entropy, prompt_disagreement])
def test_one_sample_cannot_disagree(function: object) -> None:
    with pytest.raises(ValueError, match="two or more"):
        function(np.zeros((1, 4, 4)))  # type: ignore[operator]


def test_k_centre_is_the_farthest_each_time() -> None:
    line = np.array([[0.0], [1], [4], [6], [10]])
    everything = np.ones(5, bool)
    labelled = np.array([True, False, False, False, False])
    assert k_centre_greedy(line, 4, labelled, ~labelled) == [4, 2, 3, 1]
    assert k_centre_greedy(line, 2, ~everything, everything) == [2, 4]  # begins in the middle
    assert k_centre_greedy(line, 3, everything, ~everything) == []


def test_k_centre_with_reduced_dimensions_finds_what_is_far(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    points = generator.standard_normal((400, 256)).astype(np.float32)
    points[7] += 4
    labelled = np.arange(400) >= 200
    monkeypatch.setattr("segmed.active.scoring.diversity._EXACT", 0)
    assert k_centre_greedy(points, 1, labelled, ~labelled) == [7]


def _three_groups() -> np.ndarray:
    """60 around (0, 0), 30 around (20, 0), 10 around (0, 20)."""
    generator = np.random.default_rng(1)
    centres = np.repeat([[0, 0], [20, 0], [0, 20]], [60, 30, 10], axis=0)
    return (centres + generator.standard_normal((100, 2))).astype(np.float32)


def test_typicality_is_density() -> None:
    assert typicality(np.array([[0.0], [1.0], [5.0]]), 1).tolist() == pytest.approx([1, 1, 0.25])
    assert typicality(np.array([[0.0], [1.0], [5.0]]), 20).tolist() == pytest.approx([1 / 3, 0.4, 1 / 4.5])
    many = np.random.default_rng(0).standard_normal((2500, 3))
    dense = typicality(many)
    near, far = np.linalg.norm(many, axis=1) < 0.5, np.linalg.norm(many, axis=1) > 2.5
    assert dense[near].min() > dense[far].max()  # neighbours sought in a sample
    assert typicality(np.zeros((1, 4))).tolist() == [1]


def test_clusters_find_the_groups() -> None:
    found = clusters(_three_groups(), 3)
    assert [len(set(found[part])) for part in (slice(60), slice(60, 90), slice(90, 100))] == [1, 1, 1]
    assert len(set(found)) == 3
    assert len(set(clusters(np.zeros((5, 2)), 3))) == 1


def test_even_clusters_do_not_divide_what_is_frequent() -> None:
    """Six patients with 40 follow-ups each, and 60 others with one picture each."""
    generator = np.random.default_rng(0)
    patient = np.repeat(np.arange(66), [40] * 6 + [1] * 60)
    points = (3 * generator.standard_normal((66, 12)))[patient] + generator.standard_normal((300, 12))
    frequent = patient < 6
    even, usual = clusters(points, 30, even=True), clusters(points, 30)
    assert len(set(even)) == len(set(usual)) == 30
    assert len(set(even[frequent])) <= 8 and len(set(usual[frequent])) >= 12
    nobody = np.zeros(300, bool)
    chosen = best_of_clusters(points, 30, nobody, ~nobody, generator.random(300))
    assert frequent[chosen].sum() <= 8 and len(set(patient[chosen])) == 30


def test_best_of_clusters_takes_large_unlabelled_clusters_first() -> None:
    points = _three_groups()
    labelled = np.zeros(100, bool)
    first = best_of_clusters(points, 3, labelled, ~labelled)
    assert [np.digitize(n, [60, 90]) for n in first] == [0, 1, 2]
    labelled[0] = True
    free = ~labelled & (np.arange(100) != 89)
    assert best_of_clusters(points, 2, labelled, free, np.arange(100.0)) == [88, 99]
    assert best_of_clusters(points, 5, labelled, np.arange(100) == 7) == [7]


def _pool() -> CandidatePool:
    score = np.array([0.1, 0.9, np.nan, 0.5, 0.7])
    return CandidatePool(list("abcde"), np.array([True, True, True, True, False]), {"jitter": score})


def test_scores_rank_and_unknown_images_come_last() -> None:
    assert rank("jitter", _pool(), 10, 0) == ["b", "d", "a", "c"]
    assert rank("jitter", _pool(), 1, 0, np.array([False, True, False, False, False])) == ["d"]
    assert rank("sequential", _pool(), 2) == ["a", "b"]
    assert missing("jitter", _pool()) == ""


def test_without_scores_it_is_random_and_says_so() -> None:
    orders = {tuple(rank("entropy", _pool(), 4, seed)) for seed in range(30)}
    assert len(orders) > 5
    assert {frozenset(order) for order in orders} == {frozenset("abcd")}
    assert "random" in missing("entropy", _pool())
    assert "random" in missing("core_set", _pool())
    assert rank("random", _pool(), 4, 3) == rank("random", _pool(), 4, 3)


def test_equal_scores_are_drawn_by_chance() -> None:
    pool = CandidatePool(
        [str(n) for n in range(20)], np.ones(20, bool), {"tta": np.zeros(20)}, np.zeros((20, 2), np.float32)
    )
    for name in ("tta", "core_set"):
        assert len({rank(name, pool, 1, seed)[0] for seed in range(20)}) > 5


def test_embedding_strategies_see_through_holes() -> None:
    points = _three_groups()
    points[61] = np.nan
    pool = CandidatePool(
        [str(n) for n in range(100)], np.arange(100) >= 2, {"jitter": np.linspace(0, 1, 100)}, points
    )
    labelled = np.arange(100) < 2
    nearest = np.nan_to_num(np.linalg.norm(points[:, None] - points[:2], axis=2).min(1))
    assert rank("core_set", pool, 1, 0, labelled) == [str(nearest.argmax())]
    assert 60 <= int(rank("typicality", pool, 1, 0, labelled)[0]) < 90
    # two labels and one choice make three clusters; the largest without a label is the second, its last is
    # least sure
    assert rank("hybrid", pool, 1, 0, labelled) == ["89"]
    assert rank("hybrid", pool, 100, 0, labelled)[-1] == "61"


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("size", [0, 1, 2])
def test_tiny_pools(name: str, size: int) -> None:
    bare = CandidatePool([str(n) for n in range(size)], np.ones(size, bool))
    full = CandidatePool(
        bare.images,
        bare.available,
        {STRATEGIES[name].score or "x": np.ones(size)},
        np.ones((size, 4), np.float32),
    )
    for pool in (bare, full):
        assert sorted(rank(name, pool, 3, 0)) == [str(n) for n in range(size)]
        assert rank(name, pool, 3, 0, np.ones(size, bool)) == []


def test_mistakes_are_told() -> None:
    with pytest.raises(ValueError, match="Take one of random, sequential"):
        rank("best", _pool(), 1)
    with pytest.raises(ValueError, match="1 or more"):
        rank("random", _pool(), 0)
    with pytest.raises(ValueError, match="4 rows for 5 images"):
        CandidatePool(list("abcde"), np.ones(5, bool), {"x": np.ones(4)})
