"""What a scorer finds out about an image, with models whose answers are known and with small SAMs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from segmed.active.scoring.proposals import (
    box_of,
    class_objects,
    click_prompts,
    distinct_objects,
    region_objects,
)
from segmed.active.scoring.scorer import Scorer, SliceScores, informative_slices, pool_slices
from segmed.active.scoring.scorer_config import ScorerConfig
from segmed.active.scoring.slice_probe import SliceProbe, dropout
from segmed.imaging.picture import Picture
from segmed.imaging.prompts import SlicePrompt
from segmed.methods import find_method
from segmed.methods.base.segmenter import Logits, Segmenter
from segmed.methods.classical import Classical
from segmed.methods.sam.class_head import ClassSegmenter, with_classes
from segmed.methods.sam.medsam import MedSam
from segmed.methods.sam.sam import Sam
from segmed.sam.embedding import Embedding
from segmed.sam.frame import Frame
from tiny_sam import tiny_sam
from torch import Tensor, nn

Answer = Callable[[np.ndarray, SlicePrompt, tuple[int, int]], np.ndarray]


class Told(Segmenter):
    """Gives what `answer` says of the slice (H, W) and each prompt, as logits (h, w); predicted IoU 0.7."""

    input_size = 64

    def __init__(self, answer: Answer, drop: float = 0.0) -> None:
        super().__init__()
        self.answer = answer
        self.layer = nn.Dropout(drop).eval()

    def encode(self, images: Tensor) -> Embedding:
        return Embedding(images, Frame(64, 64, 64))

    def decode(
        self, embedding: Embedding, prompts: Sequence[Sequence[SlicePrompt]] | None, size: tuple[int, int]
    ) -> Logits:
        assert prompts is not None
        image = embedding.features[0, 0].numpy()
        masks = torch.stack([torch.from_numpy(self.answer(image, p, size)).float() for p in prompts[0]])[None]
        return Logits(self.layer(masks), torch.full(masks.shape[:2], 0.7))


def _disc(image: np.ndarray, prompt: SlicePrompt, size: tuple[int, int]) -> np.ndarray:
    """A sure disc in the middle, whatever the prompt."""
    y, x = np.mgrid[: size[0], : size[1]]
    return np.where((y - size[0] / 2) ** 2 + (x - size[1] / 2) ** 2 < (size[0] / 4) ** 2, 20.0, -20.0)


def _box(image: np.ndarray, prompt: SlicePrompt, size: tuple[int, int]) -> np.ndarray:
    """The box itself, or one around the click."""
    x0, y0, x1, y1 = prompt.box or (*(prompt.points[0] - 12), *(prompt.points[0] + 12))
    y, x = np.mgrid[: size[0], : size[1]]
    return np.where((x >= x0) & (x <= x1) & (y >= y0) & (y <= y1), 20.0, -20.0)


def _unsure(image: np.ndarray, prompt: SlicePrompt, size: tuple[int, int]) -> np.ndarray:
    return _disc(image, prompt, size) / 1e6 + 1e-9


def _bright(image: np.ndarray, prompt: SlicePrompt, size: tuple[int, int]) -> np.ndarray:
    return np.where(image > 0.5, 20.0, -20.0)


def _left(image: np.ndarray, prompt: SlicePrompt, size: tuple[int, int]) -> np.ndarray:
    return np.where(np.arange(size[1]) < size[1] // 4, 20.0, -20.0) * np.ones(size)


def _elsewhere(image: np.ndarray, prompt: SlicePrompt, size: tuple[int, int]) -> np.ndarray:
    """Nothing at the upper left."""
    lone = prompt.box is None and bool((prompt.points[0] < 8).all())
    return np.full(size, -20.0) if lone else _disc(image, prompt, size)


def _picture(slices: int = 4, seed: int = 0) -> Picture:
    generator = np.random.default_rng(seed)
    array = generator.integers(0, 60, (64, 64, slices)).astype(np.uint8)
    array[20:40, 24:50] += 180
    return Picture(array, np.eye(4), "p", "auto")


CONFIG = ScorerConfig(passes=0)


def test_a_mask_that_heeds_no_prompt_does_not_disagree() -> None:
    found = Scorer(Told(_disc), CONFIG).score(_picture())
    assert found is not None
    assert found.scores == pytest.approx({"jitter": 0.0, "entropy": 0.0, "predicted_iou": 0.3}, abs=1e-6)
    # three slices of 4 × 4 clicks and one object drawn 1 + 3 times
    assert (found.encodes, found.decodes, len(found.slices)) == (3, 3 * (16 + 4), 3)
    obedient = Scorer(Told(_box), CONFIG).score(_picture())
    assert obedient is not None
    assert 0.02 < obedient.scores["jitter"] < 0.4
    assert obedient.decodes == 3 * (16 + 3 * 4)
    wild = Scorer(Told(_box), ScorerConfig(passes=0, jitter=0.4)).score(_picture())
    assert wild is not None
    assert wild.scores["jitter"] > 1.5 * obedient.scores["jitter"]


def test_images_are_described_by_the_encoder_of_a_network_that_keeps_slices() -> None:
    pytest.importorskip("segmentation_models_pytorch")
    training = find_method("unet").training
    assert training is not None
    torch.manual_seed(0)
    network = training.kind(None, training.config(labels=("a",), encoder="resnet18", input_size=32), "x")
    picture = _picture(1)
    found = Scorer(network.eval(), CONFIG).score(picture)
    assert found is not None and found.embedding.shape == (2 * 512,)
    with torch.no_grad():
        for parameter in network.network.encoder.parameters():
            parameter.zero_()
    blind = Scorer(network, CONFIG).score(picture)
    assert blind is not None and (blind.embedding == 0).all()


def test_scoring_costs_a_network_of_classes_no_more_than_two_passes_beside_the_descriptor() -> None:
    pytest.importorskip("segmentation_models_pytorch")
    training = find_method("unet").training
    assert training is not None
    torch.manual_seed(0)
    network = training.kind(None, training.config(labels=("a", "b"), encoder="resnet18", input_size=32), "x")
    runs: list[None] = []
    network.network.register_forward_hook(lambda *_: runs.append(None))
    found = Scorer(network.eval(), ScorerConfig(objects=6, jitters=4), turn=lambda work: work()).score(
        _picture(3)
    )
    assert found is not None and found.decodes > 3 * 6, "boxes were found"
    assert len(runs) == 2 * len(found.slices)


def test_entropy_is_that_of_the_mask() -> None:
    found = Scorer(Told(lambda i, p, s: np.where(_disc(i, p, s) > 0, 1e-9, -20.0)), CONFIG).score(_picture())
    assert found is not None
    assert found.scores["entropy"] == pytest.approx(1.0, abs=1e-3)


def test_test_time_augmentation() -> None:
    config = ScorerConfig(passes=0, augment=True, slices=1)
    moves = Scorer(Told(_left), config).score(_picture())
    same = Scorer(Told(_disc), config).score(_picture())
    turns = Scorer(Told(_bright), config).score(_picture())
    assert moves and same and turns
    assert moves.scores["tta"] > 0.5  # the mirrored slice gives a mask on the other side
    assert same.scores["tta"] < 0.1  # the disc is off the middle by half a pixel
    assert turns.scores["tta"] < 1e-6  # mirrored back it is the same, and 240 darkened is still bright
    assert moves.encodes == 3


def test_members_and_dropout_disagree_for_bald() -> None:
    picture = _picture(1)
    alike = Scorer(Told(_disc), CONFIG, ensemble=[Told(_disc)]).score(picture)
    apart = Scorer(Told(_disc), CONFIG, ensemble=[Told(_left)]).score(picture)
    assert alike and apart
    assert alike.scores["bald"] == pytest.approx(0, abs=1e-6)
    assert apart.scores["bald"] > 0.8
    assert apart.encodes == 2
    dropping = Told(lambda i, p, s: _disc(i, p, s) / 5, drop=0.5)
    before = torch.random.get_rng_state()
    config = ScorerConfig(passes=4)
    first, second = (Scorer(dropping, config).score(picture) for _ in range(2))
    assert first and second
    assert first.scores["bald"] > 0.01
    assert first.scores == second.scores
    assert not dropping.layer.training
    assert torch.equal(before, torch.random.get_rng_state())
    without = Scorer(Told(_disc), config).score(picture)
    assert without
    assert "bald" not in without.scores


def test_dropout_behind_the_cache_does_not_count() -> None:
    class Encoded(Told):
        def __init__(self) -> None:
            super().__init__(_disc)
            self.vision_encoder = nn.Dropout(0.5).eval()

    method = Encoded()
    with dropout(method) as layers:
        assert (layers, method.vision_encoder.training) == (0, False)
    with dropout(method, encoder=True) as layers:
        assert (layers, method.vision_encoder.training) == (1, True)
    assert not method.vision_encoder.training


@pytest.mark.parametrize("kind", [Sam, MedSam])
def test_small_sams(kind: type[Sam]) -> None:
    method = kind(tiny_sam(1, image_size=64))
    asked: list[int] = []

    def embed(picture: Picture, ks: Sequence[int]) -> Embedding:
        asked.extend(ks)
        return method.embed([picture.slice(k) for k in ks])

    turns: list[SliceScores] = []

    def turn(work: Callable[[], SliceScores]) -> SliceScores:
        turns.append(work())
        return turns[-1]

    array = _picture(3).array[:, :40]
    picture = Picture(array, np.eye(4), "p", "auto")
    first = Scorer(method, CONFIG, embed=embed, turn=turn).score(picture)
    second = Scorer(method, CONFIG).score(picture)
    assert first and second
    assert (asked, len(turns)) == ([0, 1, 2], 3)
    assert {"entropy", "jitter", "predicted_iou"} <= set(first.scores)
    assert all(0 <= v <= 1 for v in first.scores.values())
    assert first.scores == second.scores
    assert first.embedding.shape == (128,)
    features = method.embed([picture.slice(0)]).features[0]
    inside = features[:, :3] if method.keep_aspect else features  # 40 of 64 rows are 2.5 of 4 tokens
    expected = torch.cat([inside[:, :2].mean((1, 2)) if method.keep_aspect else inside.mean((1, 2))])
    assert turns[0].features[:64] == pytest.approx(expected.detach().numpy(), abs=1e-4)


def test_automatic_methods_prompt_themselves() -> None:
    torch.manual_seed(0)
    method = ClassSegmenter(with_classes(tiny_sam(1, image_size=64), 3), ("a", "b")).eval()
    look = SliceProbe(method, _picture(1).slice(0), CONFIG)
    with torch.inference_mode():
        classes = look.classes()
    assert classes.sum(0) == pytest.approx(np.ones((64, 64)), abs=1e-5)
    found = Scorer(method, ScorerConfig(passes=0, augment=True)).score(_picture(1))
    assert found
    assert 0 < found.scores["entropy"] < 1
    assert "tta" in found.scores


def test_methods_without_features() -> None:
    found = Scorer(Classical(), CONFIG).score(_picture(2))
    other = Scorer(Classical(), CONFIG).score(_picture(2, seed=1))
    assert found and other
    assert found.embedding.shape == (256,)
    assert "predicted_iou" not in found.scores
    assert found.scores["jitter"] < 0.5
    assert found.decodes <= 2 * 12
    dark = Scorer(Classical(), CONFIG).score(Picture(_picture(2).array // 4, np.eye(4), "d", "auto"))
    assert dark
    near, far = (np.linalg.norm(found.embedding - e) for e in (other.embedding, dark.embedding))
    assert near < 0.2 * far
    placed = Scorer(Classical(), CONFIG).score(_picture(1), np.array([[0.45, 0.57]]))
    assert placed
    assert placed.decodes == 1 + 4
    beside = Scorer(Told(_elsewhere), CONFIG).score(_picture(1), np.array([[0.1, 0.1]]))
    assert beside
    assert beside.decodes == 1 + 16 + 4  # nothing at that place, so the grid is asked


def test_flat_images_have_an_embedding_only() -> None:
    flat = Picture(np.full((64, 64, 5), 7, np.uint8), np.eye(4), "f", "auto")
    for method in (Classical(), Told(lambda i, p, s: np.full(s, -20.0))):
        found = Scorer(method, CONFIG).score(flat)
        assert found
        assert found.scores == {}
        assert np.isfinite(found.embedding).all()
        assert found.slices == (2,)


def test_it_stops_when_told() -> None:
    answers = iter([False, True])
    assert Scorer(Told(_disc), CONFIG).score(_picture(), cancelled=lambda: next(answers)) is None


def test_slices_and_pooling() -> None:
    picture = _picture(20)
    picture.array[:, :, :8] = 3
    assert informative_slices(picture, 3) == [10, 14, 18]
    assert informative_slices(picture, 100) == list(range(8, 20))
    scores = [{"a": 0.1, "b": float("nan")}, {"a": 0.5}, {"a": 0.3, "b": 1.0}]
    assert pool_slices(scores, 0.5) == pytest.approx({"a": 0.4, "b": 1.0})
    assert pool_slices(scores, 0.01) == pytest.approx({"a": 0.5, "b": 1.0})
    assert pool_slices([], 0.5) == {}


def test_clicks() -> None:
    clicks = [tuple(p.points[0]) for p in click_prompts((40, 80), 2)]
    assert clicks == [(20, 10), (20, 30), (60, 10), (60, 30)]
    places = np.array([[0.5, 0.5], [0.51, 0.5], [0.1, 0.1], [1.0, 1.0]])
    placed = {tuple(p.points[0]) for p in click_prompts((40, 80), 2, places)}
    assert placed == {(40, 20), (8, 4), (79, 39)}  # two of the places are one


def test_objects() -> None:
    masks = np.zeros((5, 50, 50), bool)
    masks[0, 10:20, 10:20], masks[1, 10:21, 10:20], masks[2, 30:40, 30:45] = True, True, True
    masks[3], masks[4, 0, 0] = True, True  # background and speck
    found = distinct_objects(masks, np.array([0.5, 0.9, 0.3, 1.0, 1.0]), 3)
    assert [m.sum() for m in found] == [110, 150]
    classes = np.zeros((50, 50), int)
    classes[masks[0]], classes[masks[2]], classes[0, 0] = 1, 2, 1
    assert [m.sum() for m in class_objects(classes, 3)] == [150, 100]
    assert box_of(masks[0], (100, 200)) == (40, 20, 79, 39)
    image = _picture(1).slice(0).astype(float)
    box = box_of(region_objects(image, 1)[0], (64, 64))
    assert box == pytest.approx((20, 24, 39, 49), abs=1.5)
    assert region_objects(np.zeros((40, 40)), 3) == []


@pytest.mark.parametrize(
    "wrong", [{"slices": 0}, {"passes": 1}, {"jitter": 0.5}, {"worst": 0}, {"resolution": 4}]
)
def test_settings_check_themselves(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ScorerConfig(**wrong)  # type: ignore[arg-type]


def test_methods_that_encode_each_prompt_take_short_turns() -> None:
    method = Told(_bright)
    method.keeps_slices = True
    sizes: list[int] = []

    def turn(work: Callable[[], Any]) -> Any:
        found = work()
        sizes.append(found.masks.shape[1])
        assert torch.is_inference(found.masks)
        return found

    config = ScorerConfig(slices=1, objects=2, jitters=4, passes=0)
    places = np.array([[0.5, 0.5], [0.2, 0.2], [0.8, 0.3], [0.3, 0.8]])
    found = Scorer(method, config, turn=turn).score(_picture(), places)
    whole = Scorer(method, config).score(_picture(), places)
    assert found and whole
    assert found.scores == whole.scores
    assert max(sizes) <= 4 < sum(sizes) == found.decodes
