"""Networks of classes, small SAMs and methods without features are scored, each at a cost of its kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from segmed.active.scoring.scorer import Scorer, SliceScores
from segmed.active.scoring.scorer_config import ScorerConfig
from segmed.active.scoring.slice_probe import SliceProbe
from segmed.imaging.picture import Picture
from segmed.methods import find_method
from segmed.methods.classical import Classical
from segmed.methods.sam.class_head import ClassSegmenter, with_classes
from segmed.methods.sam.medsam import MedSam
from segmed.methods.sam.sam import Sam
from segmed.sam.embedding import Embedding
from tiny_sam import tiny_sam
from told_masks import CONFIG, Told, bright, elsewhere, noisy_picture


def test_images_are_described_by_the_encoder_of_a_network_that_keeps_slices() -> None:
    pytest.importorskip("segmentation_models_pytorch")
    training = find_method("unet").training
    assert training is not None
    torch.manual_seed(0)
    network = training.kind(None, training.config(labels=("a",), encoder="resnet18", input_size=32), "x")
    picture = noisy_picture(1)
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
        noisy_picture(3)
    )
    assert found is not None and found.decodes > 3 * 6, "boxes were found"
    assert len(runs) == 2 * len(found.slices)


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

    array = noisy_picture(3).array[:, :40]
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
    look = SliceProbe(method, noisy_picture(1).slice(0), CONFIG)
    with torch.inference_mode():
        classes = look.classes()
    assert classes.sum(0) == pytest.approx(np.ones((64, 64)), abs=1e-5)
    found = Scorer(method, ScorerConfig(passes=0, augment=True)).score(noisy_picture(1))
    assert found
    assert 0 < found.scores["entropy"] < 1
    assert "tta" in found.scores


def test_methods_without_features() -> None:
    found = Scorer(Classical(), CONFIG).score(noisy_picture(2))
    other = Scorer(Classical(), CONFIG).score(noisy_picture(2, seed=1))
    assert found and other
    assert found.embedding.shape == (256,)
    assert "predicted_iou" not in found.scores
    assert found.scores["jitter"] < 0.5
    assert found.decodes <= 2 * 12
    dark = Scorer(Classical(), CONFIG).score(Picture(noisy_picture(2).array // 4, np.eye(4), "d", "auto"))
    assert dark
    near, far = (np.linalg.norm(found.embedding - e) for e in (other.embedding, dark.embedding))
    assert near < 0.2 * far
    placed = Scorer(Classical(), CONFIG).score(noisy_picture(1), np.array([[0.45, 0.57]]))
    assert placed
    assert placed.decodes == 1 + 4
    beside = Scorer(Told(elsewhere), CONFIG).score(noisy_picture(1), np.array([[0.1, 0.1]]))
    assert beside
    assert beside.decodes == 1 + 16 + 4  # nothing at that place, so the grid is asked


def test_methods_that_encode_each_prompt_take_short_turns() -> None:
    method = Told(bright)
    method.keeps_slices = True
    sizes: list[int] = []

    def turn(work: Callable[[], Any]) -> Any:
        found = work()
        sizes.append(found.masks.shape[1])
        assert torch.is_inference(found.masks)
        return found

    config = ScorerConfig(slices=1, objects=2, jitters=4, passes=0)
    places = np.array([[0.5, 0.5], [0.2, 0.2], [0.8, 0.3], [0.3, 0.8]])
    found = Scorer(method, config, turn=turn).score(noisy_picture(), places)
    whole = Scorer(method, config).score(noisy_picture(), places)
    assert found and whole
    assert found.scores == whole.scores
    assert max(sizes) <= 4 < sum(sizes) == found.decodes
