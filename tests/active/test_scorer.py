"""Scores of an image measure how much masks change with the prompt, the network and the view."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from segmed.active.scoring.scorer import Scorer
from segmed.active.scoring.scorer_config import ScorerConfig
from segmed.active.scoring.slice_probe import dropout
from told_masks import CONFIG, Told, bright, disc, drawn_box, left, noisy_picture
from torch import nn


def test_a_mask_that_heeds_no_prompt_does_not_disagree() -> None:
    found = Scorer(Told(disc), CONFIG).score(noisy_picture())
    assert found is not None
    assert found.scores == pytest.approx({"jitter": 0.0, "entropy": 0.0, "predicted_iou": 0.3}, abs=1e-6)
    # three slices of 4 × 4 clicks and one object drawn 1 + 3 times
    assert (found.encodes, found.decodes, len(found.slices)) == (3, 3 * (16 + 4), 3)
    obedient = Scorer(Told(drawn_box), CONFIG).score(noisy_picture())
    assert obedient is not None
    assert 0.02 < obedient.scores["jitter"] < 0.4
    assert obedient.decodes == 3 * (16 + 3 * 4)
    wild = Scorer(Told(drawn_box), ScorerConfig(passes=0, jitter=0.4)).score(noisy_picture())
    assert wild is not None
    assert wild.scores["jitter"] > 1.5 * obedient.scores["jitter"]


def test_entropy_is_that_of_the_mask() -> None:
    found = Scorer(Told(lambda i, p, s: np.where(disc(i, p, s) > 0, 1e-9, -20.0)), CONFIG).score(
        noisy_picture()
    )
    assert found is not None
    assert found.scores["entropy"] == pytest.approx(1.0, abs=1e-3)


def test_test_time_augmentation() -> None:
    config = ScorerConfig(passes=0, augment=True, slices=1)
    moves = Scorer(Told(left), config).score(noisy_picture())
    same = Scorer(Told(disc), config).score(noisy_picture())
    turns = Scorer(Told(bright), config).score(noisy_picture())
    assert moves and same and turns
    assert moves.scores["tta"] > 0.5  # the mirrored slice gives a mask on the other side
    assert same.scores["tta"] < 0.1  # the disc is off the middle by half a pixel
    assert turns.scores["tta"] < 1e-6  # mirrored back it is the same, and 240 darkened is still bright
    assert moves.encodes == 3


def test_members_and_dropout_disagree_for_bald() -> None:
    picture = noisy_picture(1)
    alike = Scorer(Told(disc), CONFIG, ensemble=[Told(disc)]).score(picture)
    apart = Scorer(Told(disc), CONFIG, ensemble=[Told(left)]).score(picture)
    assert alike and apart
    assert alike.scores["bald"] == pytest.approx(0, abs=1e-6)
    assert apart.scores["bald"] > 0.8
    assert apart.encodes == 2
    dropping = Told(lambda i, p, s: disc(i, p, s) / 5, drop=0.5)
    before = torch.random.get_rng_state()
    config = ScorerConfig(passes=4)
    first, second = (Scorer(dropping, config).score(picture) for _ in range(2))
    assert first and second
    assert first.scores["bald"] > 0.01
    assert first.scores == second.scores
    assert not dropping.layer.training
    assert torch.equal(before, torch.random.get_rng_state())
    without = Scorer(Told(disc), config).score(picture)
    assert without
    assert "bald" not in without.scores


def test_dropout_behind_the_cache_does_not_count() -> None:
    class Encoded(Told):
        def __init__(self) -> None:
            super().__init__(disc)
            self.vision_encoder = nn.Dropout(0.5).eval()

    method = Encoded()
    with dropout(method) as layers:
        assert (layers, method.vision_encoder.training) == (0, False)
    with dropout(method, encoder=True) as layers:
        assert (layers, method.vision_encoder.training) == (1, True)
    assert not method.vision_encoder.training


def test_it_stops_when_told() -> None:
    answers = iter([False, True])
    assert Scorer(Told(disc), CONFIG).score(noisy_picture(), cancelled=lambda: next(answers)) is None


@pytest.mark.parametrize(
    "wrong", [{"slices": 0}, {"passes": 1}, {"jitter": 0.5}, {"worst": 0}, {"resolution": 4}]
)
def test_settings_check_themselves(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ScorerConfig(**wrong)  # type: ignore[arg-type]
