"""The choice among the masks of a single click: what it is told, and what it makes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from segmed.imaging.prompts import SlicePrompt
from segmed.methods.segmed.click_choice import ClickChoice, load_choice, save_choice
from segmed.methods.segmed.click_hypotheses import FEATURES, hypotheses_of
from segmed.methods.segmed.network import MASKS, PromptNetwork
from segmed.methods.segmed.segmenter import LookConfig, Segmed
from segmed.methods.segmed.views import around_clicks
from segmed.methods.segmed.weights import load_network, network_version, save_network

COUNT = len(FEATURES)
CLICK = SlicePrompt(points=np.array([[64, 64]], np.float32), labels=np.array([1], np.int64))


def _state(favourite: str = "predicted IoU") -> dict[str, torch.Tensor]:
    """Scores that are the value of one feature, as long as it is positive."""
    w1 = torch.zeros(4, 2 * COUNT)
    w1[0, FEATURES.index(favourite)] = 1
    w3 = torch.zeros(1, 4)
    w3[0, 0] = 1
    plain = {"mean": torch.zeros(COUNT), "deviation": torch.ones(COUNT)}
    layers = {"w1": w1, "b1": torch.zeros(4), "w2": torch.eye(4), "b2": torch.zeros(4), "w3": w3}
    return {**plain, **layers, "b3": torch.zeros(1)}


def _picture() -> np.ndarray:
    y, x = np.mgrid[:128, :128]
    return np.where(np.hypot(x - 64, y - 64) < 20, 200, 60).astype(np.uint8)


def _found(model: Segmed, masks: torch.Tensor, quality: torch.Tensor) -> np.ndarray:
    embedding = model.embed([_picture()])
    return hypotheses_of(embedding, 0, CLICK, around_clicks(0, CLICK, 128), masks, quality).features()


@pytest.fixture(scope="module")
def model() -> Segmed:
    torch.manual_seed(0)
    return Segmed(PromptNetwork().eval(), "test", LookConfig(size=64))


def test_masks_are_described_as_they_lie_on_the_slice(model: Segmed) -> None:
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    disc = torch.hypot(x - 31.5, y - 31.5) < 10  # in the largest window, 2 px of the slice each
    masks = torch.full((4, MASKS, 64, 64), -8.0)
    masks[0, 1] = torch.where(disc, 8.0, -8.0)
    masks[0, 2, :, :8] = 8.0  # along the left side of the slice, and without the click
    quality = torch.full((4, MASKS), 0.5)
    quality[0, 1] = 0.9
    told = {name: column for name, column in zip(FEATURES, _found(model, masks, quality).T, strict=True)}
    assert told["predicted IoU"][0] == pytest.approx(0.9)
    assert np.exp(told["log area"][0]) == pytest.approx(np.pi * 10**2 / 64**2, rel=0.05)
    assert told["depth of the click"][0] > 0.9
    assert told["part of the click"][:2].tolist() == [1, 0]
    assert told["share of its box"][0] == pytest.approx(np.pi / 4, abs=0.04)
    assert told["contrast"][0] > 5 * told["contrast"][1]
    assert told["offset of the click"][0] < 0.02 < told["offset of the click"][1]
    assert told["sides of the slice reached"][:2].tolist() == [0, 3]
    assert told["largest window"].tolist() == [1, 1, 0] + [0] * 9
    assert told["empty"].tolist() == [0, 0] + [1] * 10
    assert told["agreement"][0] > 0 == told["agreement"][5]


def test_clicks_on_the_wrong_side_of_a_mask_are_counted(model: Segmed) -> None:
    masks = torch.full((4, MASKS, 64, 64), -8.0)
    masks[0, 0, 24:40, 24:40] = 8.0  # px 48 to 80 of the slice
    said = SlicePrompt(
        points=np.array([[20, 20], [64, 64], [120, 64]], np.float32), labels=np.array([0, 1, 1], np.int64)
    )
    views = around_clicks(0, said, 128)
    views = [replace(view, window=torch.tensor([0.0, 0, 128, 128])) for view in views]
    found = hypotheses_of(model.embed([_picture()]), 0, said, views, masks, torch.full((4, MASKS), 0.5))
    told = dict(zip(FEATURES, found.features()[0], strict=True))
    assert len(found.iou) == 4  # one mask per window
    assert found.clicks[0].tolist() == [64, 64]  # the first one on the object
    assert told["clicks agreed with"] == pytest.approx(2 / 3)
    assert told["log of the number of clicks"] == pytest.approx(np.log(3))
    assert told["depth of the click"] > 0.9


def test_the_choice_takes_the_mask_with_the_highest_score_and_no_empty_one() -> None:
    features = torch.zeros(2, 5, COUNT)
    features[:, :, 0] = torch.tensor([0.1, 0.9, 0.3, 0.8, 0.95])
    features[:, 4, -1] = 1  # empty
    scores = ClickChoice(_state())(features)
    assert scores.argmax(1).tolist() == [1, 1]
    assert torch.allclose(scores[0, :4], features[0, :4, 0])


def test_many_marks_weigh_agreement_by_trust(model: Segmed) -> None:
    found: Any = SimpleNamespace(agreement=np.array([0.70, 0.62]), trust=np.array([0.55, 0.70]))
    many = SlicePrompt(points=np.zeros((9, 2), np.float32), labels=np.ones(9, np.int64))
    assert int(model._scores(found, CLICK).argmax()) == 0
    assert int(model._scores(found, many).argmax()) == 1


def test_clicks_and_scribbles_are_decided_by_the_choice(model: Segmed) -> None:
    masks = torch.full((4, MASKS, 64, 64), -8.0)
    masks[0, 1:, 24:40, 24:40] = 8.0  # several windows agree on this one
    masks[1, 1:, 16:48, 16:48] = 8.0
    masks[2, 3, 30:34, 30:34] = 8.0
    masks[:, 0] = masks[:, 1]
    masks[2, 0] = masks[2, 3]
    quality = torch.full((4, MASKS), 0.6)
    quality[2, 3] = quality[2, 0] = 0.7

    class Fixed(Segmed):
        def _look(self, embedding: object, views: object) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
            return masks, quality

    embedding = model.embed([_picture()])
    plain, chosen = Fixed(model.network, "test", model.look), Fixed(model.network, "test", model.look)
    chosen.choice = ClickChoice(_state())
    strokes = np.zeros((128, 128), np.int8)
    strokes[62:66, 60:68] = 1
    scribble = SlicePrompt(scribbles=strokes)
    sides = [
        (frame[2:] - frame[:2]).max().item()
        for of in (plain, chosen)
        for frame, _ in (of._guess(embedding, [(0, CLICK)])[0], of._guess(embedding, [(0, scribble)])[0])
    ]
    assert sides[0] > 20 and sides[1] > 20  # agreement
    assert sides[2] < 10 and sides[3] < 10  # this choice prefers the highest predicted IoU


def test_a_choice_lies_beside_the_weights_and_belongs_to_their_version(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_network(PromptNetwork(), tmp_path)
    assert load_choice(tmp_path) is None
    before = load_network(tmp_path)
    assert Segmed(before).choice is None
    save_choice(_state(), tmp_path)
    after = load_network(tmp_path)
    assert Segmed(after).choice is not None
    assert network_version(after) != network_version(before)
    assert not [name for name in after.state_dict() if name.startswith("choice")]  # fine-tuning leaves it
    (tmp_path / "click_choice.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"damaged.*Copy the folder again"):
        load_network(tmp_path)


@pytest.mark.parametrize(
    "change", [{"w1": torch.zeros(4, 7)}, {"mean": torch.zeros(3)}, {"extra": torch.zeros(1)}]
)
def test_tensors_of_another_kind_are_refused(change: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ValueError, match=f"for {COUNT} features"):
        ClickChoice(_state() | change)
