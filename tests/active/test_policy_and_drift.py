"""When to retrain, what to replay, what counts as drift and which labels are suspect."""

from __future__ import annotations

import math

import numpy as np
import pytest
from segmed.active.drift import DriftConfig, embedding_drift, score_drift
from segmed.active.policy import RetrainConfig, Situation, retraining_reason
from segmed.active.replay import replay_set
from segmed.active.review.quarantine import QuarantineConfig, label_dice, suspicion

EVERYTHING = RetrainConfig(labels=20, hours=24, on_drift=True)


@pytest.mark.parametrize(
    ("situation", "reason"),
    [
        (Situation(new_labels=20), "20 images"),
        (Situation(new_labels=19), ""),
        (Situation(new_labels=1, hours=25), "25 h"),
        (Situation(new_labels=0, hours=25, drift="They differ."), ""),
        (Situation(new_labels=1, drift="They differ."), "They differ."),
        (Situation(new_labels=30, busy=True), ""),
        (Situation(new_labels=30, failures=1, hours_since_failure=0.2), ""),
        (Situation(new_labels=30, failures=1, hours_since_failure=0.3), "30 images"),
        (Situation(new_labels=30, failures=4, hours_since_failure=1.9), ""),
        (Situation(new_labels=30, failures=4, hours_since_failure=2.1), "30 images"),
        (Situation(new_labels=30, failures=5000, hours_since_failure=24.1), "30 images"),
    ],
)
def test_due(situation: Situation, reason: str) -> None:
    found = retraining_reason(EVERYTHING, situation)
    assert reason in found
    assert bool(found) == bool(reason)


def test_what_is_off_is_off() -> None:
    off = RetrainConfig(labels=0)
    assert retraining_reason(off, Situation(new_labels=1000, hours=1000, drift="They differ.")) == ""
    with pytest.raises(ValueError, match="negative"):
        RetrainConfig(labels=-1)


def test_replay_balances_classes_and_keeps_empty_labels() -> None:
    earlier = {f"l{n}": ["liver"] for n in range(1000)}
    earlier |= {f"t{n}": ["liver", "tumour"] for n in range(10)} | {f"e{n}": [] for n in range(200)}
    found = replay_set(earlier, 60)
    assert len(found) == len(set(found)) == 60
    kinds = [name[0] for name in found]
    assert kinds.count("t") == 10  # all of the rare class
    assert kinds.count("e") == 30
    assert kinds.count("l") == 20  # with the tumours 30 show a liver


def test_replay_is_a_stable_and_even_sample() -> None:
    images = {f"i{n}": ["x"] for n in range(400)}
    small, large = replay_set(images, 50), replay_set(images, 100)
    assert large[:50] == small
    assert replay_set(dict(reversed(images.items())), 50) == small
    grown = replay_set(images | {f"new{n}": ["x"] for n in range(40)}, 50)
    assert len(set(grown) & set(small)) >= 38  # each new image drives one out with a chance of 1 in 9
    counts = np.zeros(400)
    for seed in range(100):
        counts[[int(name[1:]) for name in replay_set(images, 100, seed)]] += 1
    # binomial with mean 25 and standard deviation 4.3
    assert abs(counts.mean() - 25) < 1e-9
    assert 3.5 < counts.std() < 5.2
    assert replay_set({}, 5) == []
    assert len(replay_set({"a": ["x", "x"], "b": []}, 99)) == 2


def test_energy_distance_finds_shifts_of_mean_and_of_spread() -> None:
    generator = np.random.default_rng(0)
    config = DriftConfig(permutations=199)
    before = generator.standard_normal((80, 8))
    moved, wider = generator.standard_normal((60, 8)) + 1.0, 3 * generator.standard_normal((60, 8))
    for recent in (moved, wider):
        drift = embedding_drift(before, recent, config)
        assert drift.size >= drift.threshold
        assert drift.p == pytest.approx(1 / 200)
        assert drift.message
    same = embedding_drift(before, generator.standard_normal((60, 8)), config)
    assert (same.size < same.threshold, same.message) == (True, "")
    # by hand: points 0 and 1 against 3: 2 · 2.5 - 0.5 - 0, over 2 · 2.5
    tiny = embedding_drift(
        np.array([[0.0], [1.0]]), np.array([[3.0], [3.0]]), DriftConfig(fewest=2, permutations=99)
    )
    assert tiny.size == pytest.approx((5 - 0.5) / 5)


def test_false_alarms_are_rare_and_large_samples_do_not_alarm_for_nothing() -> None:
    generator = np.random.default_rng(1)
    config = DriftConfig(level=0.05, energy=0.0, permutations=99)
    alarms = sum(
        bool(embedding_drift(generator.random((20, 3)), generator.random((20, 3)), config).message)
        for _ in range(100)
    )
    assert 1 <= alarms <= 13  # 5 expected, standard deviation 2.2
    scores = generator.random(5000)
    slight = score_drift(scores, scores + 0.05)
    assert slight.p < 1e-3
    assert slight.message == ""
    assert "median" in score_drift(scores, scores + 0.5).message


def test_too_few_images_say_nothing() -> None:
    few = embedding_drift(np.zeros((3, 2)), np.ones((50, 2)))
    assert math.isnan(few.size)
    assert few.message == ""
    assert math.isnan(score_drift(np.full(20, np.nan), np.ones(20)).size)
    same = embedding_drift(np.zeros((20, 2)), np.zeros((20, 2)))
    assert (same.size, same.message) == (0.0, "")
    with pytest.raises(ValueError, match="one model version"):
        embedding_drift(np.zeros((20, 2)), np.zeros((20, 3)))
    with pytest.raises(ValueError, match="permutations"):
        DriftConfig(level=0.001, permutations=99)


GOOD = [0.8, 0.82, 0.84, 0.86, 0.88, 0.9]


def test_suspicion_needs_all_reliable_versions() -> None:
    assert suspicion({"a": 0.05}, {"a": GOOD}).startswith("The label differs strongly")
    assert suspicion({"a": 0.05, "b": 0.5}, {"a": GOOD, "b": GOOD}) == ""
    assert "a 0.05" in suspicion({"a": 0.05, "b": 0.5}, {"a": GOOD, "b": [0.3] * 6})
    assert suspicion({"a": 0.05}, {"a": GOOD[:4]}) == ""  # too few to know what is usual
    assert suspicion({"a": math.nan}, {"a": GOOD}) == ""
    assert suspicion({"a": 0.35}, {"a": GOOD}) == ""  # bad, not wild
    assert suspicion({}, {}) == ""
    varied = [0.3, 0.9, 0.65, 0.95, 0.5, 0.99]
    assert suspicion({"a": 0.05}, {"a": varied}) == ""  # such labels are usual here


def test_limits_check_themselves() -> None:
    with pytest.raises(ValueError, match="floor"):
        QuarantineConfig(floor=0.7)


def test_label_dice_by_label() -> None:
    first, second = np.array([[0, 1, 1, 2]]), np.array([[0, 1, 0, 3]])
    assert label_dice(first, second) == {1: pytest.approx(2 / 3), 2: 0.0, 3: 0.0}
    assert label_dice(np.zeros((2, 2), int), np.zeros((2, 2), int)) == {}
    with pytest.raises(ValueError, match="resample"):
        label_dice(first, second[:, :2])
