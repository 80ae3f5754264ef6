"""Which candidates the gate lets pass, on scores computed by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from segmed.evaluation.case_scores import CaseScore
from segmed.registry.gate import GateConfig, compare, label_changes


def scores(
    dice: Sequence[float], label: str = "liver", hd95: float | Sequence[float] = 4.0
) -> list[CaseScore]:
    distances = np.broadcast_to(hd95, len(dice)).tolist()
    return [CaseScore(f"case{n}", label, d, h) for n, (d, h) in enumerate(zip(dice, distances, strict=True))]


def test_a_gain_on_every_case_is_accepted() -> None:
    old = scores([0.80, 0.70, 0.60, 0.90])
    new = scores([0.82, 0.74, 0.66, 0.92])
    verdict = compare(new, old, rival="the served version 0001-00000000")
    assert verdict.accepted
    assert verdict.cases == 4
    assert verdict.gain == pytest.approx((0.02 + 0.04 + 0.06 + 0.02) / 4)
    assert verdict.interval is not None
    assert 0.0199 < verdict.interval[0] < verdict.gain < verdict.interval[1] < 0.0601
    assert verdict.reason.startswith(
        "Better than the served version 0001-00000000. Mean Dice 0.785 instead of 0.750 (+0"
    )
    assert verdict.hd95_gain == 0


def test_a_constant_gain_has_an_interval_without_width() -> None:
    verdict = compare(scores([0.5, 0.6, 0.7]), scores([0.4, 0.5, 0.6]))
    assert verdict.interval == pytest.approx((0.1, 0.1))


def test_the_interval_is_that_of_all_possible_draws() -> None:
    """Three cases can be drawn in 27 ways, which can be written down."""
    gains = np.array([0.0, 0.03, 0.09])
    means = [gains[list(draw)].mean() for draw in np.ndindex(3, 3, 3)]
    expected = np.quantile(np.repeat(means, 1000), [0.05, 0.95])
    verdict = compare(scores(0.5 + gains), scores([0.5] * 3), GateConfig(resamples=20_000))
    assert verdict.interval == pytest.approx(tuple(expected), abs=0.0101)  # 0.01 is one step of the means
    assert verdict == compare(scores(0.5 + gains), scores([0.5] * 3), GateConfig(resamples=20_000))


def test_cases_are_drawn_as_a_whole() -> None:
    """Two labels of one case rise and fall together; drawn apart, the interval would be narrower by
    sqrt(2)."""
    gains = np.array([0.00, 0.10, 0.00, 0.10, 0.00, 0.10])
    one = compare(scores(0.5 + gains), scores([0.5] * 6))
    both = compare(
        [*scores(0.5 + gains), *scores(0.5 + gains, "spleen")],
        [*scores([0.5] * 6), *scores([0.5] * 6, "spleen")],
    )
    assert both.interval == pytest.approx(one.interval)


def test_labels_weigh_the_same_however_many_cases_have_them() -> None:
    old = [*scores([0.5] * 8), *scores([0.5] * 2, "spleen")]
    new = [*scores([0.52] * 8), *scores([0.6] * 2, "spleen")]
    assert compare(new, old).gain == pytest.approx((0.02 + 0.1) / 2)


def test_equal_is_not_better() -> None:
    old = scores([0.80, 0.70, 0.60])
    verdict = compare(old, old)
    assert not verdict.accepted
    assert verdict.gain == 0
    assert "the mean Dice is not higher" in verdict.reason
    assert not compare(scores([0.8005, 0.7005, 0.6005]), old).accepted


def test_a_worse_model_is_rejected_with_the_numbers() -> None:
    verdict = compare(scores([0.3, 0.4, 0.2]), scores([0.8, 0.9, 0.7]), rival="the untrained method")
    assert not verdict.accepted
    assert verdict.reason.startswith(
        "Not served, the untrained method stays in use: the mean Dice is lower; liver falls"
    )
    assert (
        "0.300 instead of 0.800 (-0.500, 90% interval -0.500 to -0.500) on 3 validation cases"
        in verdict.reason
    )


def test_one_lucky_case_is_not_enough() -> None:
    old = scores([0.80] * 6)
    lucky = compare(scores([0.74, 0.75, 0.74, 0.75, 0.75, 1.00]), old, GateConfig(label_drop=1))
    losing = compare(scores([0.70, 0.70, 0.75, 0.75, 0.99, 0.99]), old, GateConfig(label_drop=1))
    assert lucky.gain is not None and lucky.gain < 0
    assert losing.gain is not None and losing.gain > 0.01
    assert not losing.accepted
    assert "cannot be excluded" in losing.reason


def test_a_real_gain_passes_although_one_case_loses() -> None:
    old = scores([0.80, 0.82, 0.78, 0.81, 0.79, 0.80])
    assert compare(scores([0.85, 0.86, 0.84, 0.85, 0.78, 0.86]), old).accepted


def test_one_label_must_not_collapse_while_the_mean_rises() -> None:
    old = [*scores([0.5] * 5), *scores([0.6] * 5, "spleen"), *scores([0.9] * 5, "kidney")]
    new = [*scores([0.9] * 5), *scores([0.9] * 5, "spleen"), *scores([0.8] * 5, "kidney")]
    verdict = compare(new, old)
    assert verdict.gain == pytest.approx(0.2)
    assert not verdict.accepted
    assert "kidney falls from Dice 0.900 to 0.800 on 5 validation cases" in verdict.reason
    assert compare(new, old, GateConfig(label_drop=0.11)).accepted
    assert [(c.label, round(c.gain, 6)) for c in verdict.labels] == [
        ("kidney", -0.1),
        ("liver", 0.4),
        ("spleen", 0.3),
    ]


def test_a_large_gain_may_risk_as_much_as_it_brings() -> None:
    old = scores([0.5] * 4)
    assert compare(scores([0.75, 0.7, 0.45, 0.45]), old).accepted  # the interval reaches -0.05
    lucky = compare(scores([0.95, 0.35, 0.4, 0.5]), old)
    assert not lucky.accepted and "a loss of more than 0.05 cannot be excluded" in lucky.reason


def test_a_certain_gain_outweighs_what_chance_explains() -> None:
    old = [*scores([0.5] * 8), *scores([0.9] * 8, "kidney")]
    slipped = [0.9, 0.95, 0.9, 0.95, 0.9, 0.9, 0.9, 0.35]
    new = [*scores([0.9] * 8), *scores(slipped, "kidney")]
    assert compare(new, old).labels[0].gain < -0.05
    assert compare(new, old).accepted
    uncertain = [*scores([0.5] * 7 + [0.9]), *scores(slipped, "kidney")]
    assert not compare(uncertain, old).accepted


def test_misses_that_chance_does_not_explain_are_rejected() -> None:
    old = scores([0.5] * 8)
    one = scores([0.8] * 7 + [0.0], hd95=[4.0] * 7 + [math.inf])
    assert compare(one, old).accepted
    three = compare(scores([0.95] * 5 + [0.0] * 3, hd95=[4.0] * 5 + [math.inf] * 3), old)
    assert not three.accepted and "3 times instead of 0" in three.reason


def test_outlines_further_off_are_rejected() -> None:
    old, dice = scores([0.8] * 5, hd95=4.0), [0.82] * 5
    assert compare(scores(dice, hd95=4.9), old).accepted  # within a voxel
    worse = compare(scores(dice, hd95=8.0), old)
    assert not worse.accepted
    assert worse.hd95_gain == pytest.approx(4)
    assert "HD95 8.0 instead of 4.0" in worse.reason
    # a large mean of one case only is no clear rise
    assert compare(scores(dice, hd95=[3.0, 3.0, 3.0, 3.0, 20.0]), old).accepted


def test_missed_structures_must_not_become_more() -> None:
    old = scores([0.5, 0.5, 0.5, 0.5, 0.0], hd95=[4, 4, 4, 4, math.inf])
    found = compare(scores([0.6] * 5), old)
    assert found.accepted
    assert (found.labels[0].missed, found.labels[0].old_missed) == (0, 1)
    worse = compare(scores([0.9, 0.9, 0.0, 0.0, 0.0], hd95=[4, 4, math.inf, math.inf, math.inf]), old)
    assert not worse.accepted
    few = compare(scores([0.9, 0.0], hd95=[4, math.inf]), scores([0.3, 0.3]))
    assert few.accepted and "too few to tell" in few.reason  # the mean has counted what is missed
    all_missed = scores([0.0] * 3, hd95=math.inf)
    assert compare(scores([0.5] * 3), all_missed).accepted


@pytest.mark.parametrize("count", [1, 2])
def test_few_cases_decide_but_say_so(count: int) -> None:
    old = scores([0.5] * count)
    better, worse = compare(scores([0.6] * count), old), compare(scores([0.49] * count), old)
    assert better.accepted and not worse.accepted
    assert better.interval is None
    for verdict in (better, worse):
        assert f"rests on {count} validation case{'s' * (count > 1)} only" in verdict.reason


@pytest.mark.parametrize(
    "wrong", [{"dice": math.nan}, {"dice": 1.2}, {"dice": -0.1}, {"hd95": math.nan}, {"hd95": -1.0}]
)
def test_scores_that_are_no_numbers_are_rejected(wrong: dict[str, float]) -> None:
    old = scores([0.1] * 4)
    new = scores([0.9] * 4)
    bad = [*new[:3], replace(new[3], **wrong)]
    verdict = compare(bad, old)
    assert not verdict.accepted
    assert "1 of 4 scores of the candidate" in verdict.reason and "case3" in verdict.reason
    assert not compare(new, [*old[:3], replace(old[3], **wrong)]).accepted


def test_other_cases_empty_and_double_scores_are_rejected() -> None:
    old, new = scores([0.1] * 3), scores([0.9] * 3)
    for candidate, served, words in (
        ([], old, "there are no scores of the candidate"),
        (new, [], "there are no scores of the served version"),
        (new[:2], old, "case2, which only the served version has"),
        (new, scores([0.1] * 3, "spleen"), "6 scores have no partner"),
        ([*new, new[0]], old, "case0 has 2 scores"),
    ):
        verdict = compare(candidate, served)
        assert not verdict.accepted
        assert words in verdict.reason
        assert verdict.reason.endswith("The served version stays in use.")


def test_label_changes_take_shared_cases_only() -> None:
    (change,) = label_changes(scores([0.9, 0.7, 0.1]), scores([0.5, 0.4]))
    assert (change.cases, change.dice, change.old_dice) == (2, pytest.approx(0.8), pytest.approx(0.45))


@pytest.mark.parametrize(
    "wrong",
    [{"tolerance": -1}, {"label_drop": 2}, {"confidence": 1}, {"hd95_rise": math.nan}, {"resamples": 1}],
)
def test_config_checks_itself(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        GateConfig(**wrong)  # type: ignore[arg-type]


def test_a_useless_model_does_not_keep_one_out_that_finds_less_at_random() -> None:
    """A network before training paints everything with everything: nothing is missed, and nothing found."""
    cases = ("a", "b", "c")
    useless = [CaseScore(case, label, 0.01, 30.0) for case in cases for label in ("liver", "spleen")]
    learnt = [CaseScore(case, "liver", 0.8, 4.0) for case in cases] + [
        CaseScore(case, "spleen", 0.0, math.inf) for case in cases
    ]
    assert compare(learnt, useless).accepted
    found = [CaseScore(s.case, s.label, 0.3, 30.0) for s in useless]
    assert not compare(learnt, found).accepted


def _absent(count: int, found: bool, label: str = "spleen") -> list[CaseScore]:
    """Cases without the structure, on which something is found or not."""
    dice, hd95 = (0.0, math.inf) if found else (1.0, 0.0)
    return [CaseScore(f"empty{n}", label, dice, hd95, present=False) for n in range(count)]


def test_a_model_that_finds_nothing_gains_nothing_by_empty_cases() -> None:
    served = [*scores([0.5, 0.6, 0.4, 0.5], "spleen"), *_absent(8, found=True)]
    blind = [*scores([0.0] * 4, "spleen", math.inf), *_absent(8, found=False)]
    verdict = compare(blind, served)
    assert not verdict.accepted and verdict.gain == pytest.approx(-0.5)
    assert "spleen falls from Dice 0.500 to 0.000" in verdict.reason


def test_an_equal_dice_with_fewer_false_finds_is_better() -> None:
    found = scores([0.5, 0.6, 0.4, 0.5], "spleen")
    noisy, clean = [*found, *_absent(3, found=True)], [*found, *_absent(3, found=False)]
    assert compare(clean, noisy).accepted
    verdict = compare(noisy, clean)
    assert not verdict.accepted and "3 times instead of 0" in verdict.reason


def test_structures_that_no_case_has() -> None:
    nowhere = _absent(4, found=False, label="lesion")
    better = compare([*scores([0.9] * 4), *nowhere], [*scores([0.8] * 4), *nowhere])
    assert better.accepted and better.gain == pytest.approx(0.1)
    assert not compare(_absent(4, found=False), _absent(4, found=False)).accepted
