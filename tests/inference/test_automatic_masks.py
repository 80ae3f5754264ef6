"""Masks of everything on a slice, beside transformers' own sorting and on synthetic images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from segmed.evaluation.metrics import Overlap
from segmed.imaging.picture import Picture
from segmed.imaging.prompts import SlicePrompt
from segmed.imaging.store import ByteBoundedStore
from segmed.inference.automatic_masks import (
    PRESETS,
    AutomaticMasksConfig,
    ProposedMask,
    automatic_masks,
    point_grid,
    stability_score,
)
from segmed.inference.loading import BackboneConfig, Loader
from segmed.inference.predictor import Predictor
from segmed.methods.base.segmenter import Logits, Segmenter
from segmed.methods.classical import Classical
from segmed.methods.featup.featup import FeatUp
from segmed.methods.lora import LoraSam, LoraSamConfig
from segmed.methods.sam.decoder_tuning import DecoderTuning
from segmed.methods.sam.medsam import MedSam
from segmed.methods.sam.sam import Sam
from segmed.sam.embedding import Embedding
from tiny_sam import tiny_sam
from torchvision.ops import box_iou, masks_to_boxes
from transformers import SamImageProcessor, SamModel

HEIGHT, WIDTH = 90, 140
CLICKS = [
    SlicePrompt(points=np.array([xy], np.float32), labels=np.ones(1, np.int64)) for xy in ((40, 30), (90, 60))
]


@pytest.fixture(scope="module")
def model() -> SamModel:
    return tiny_sam(2)


@pytest.fixture(scope="module")
def picture() -> Picture:
    rng = np.random.default_rng(1)
    coarse = torch.from_numpy(rng.random((1, 1, 7, 9))).float()
    fine = torch.nn.functional.interpolate(coarse, (HEIGHT, WIDTH), mode="bicubic")[0, 0].clamp(0, 1)
    return Picture((fine.numpy().T[:, :, None] * 220).astype(np.uint8), np.eye(4), "smooth", "auto")


@pytest.fixture(scope="module")
def drawn() -> tuple[Picture, list[np.ndarray]]:
    """Three things of different brightness on a dark ground, with some noise; slice 1 is blank."""
    y, x = np.mgrid[:128, :160]
    things = [
        (x - 45) ** 2 + (y - 40) ** 2 < 22**2,
        (x - 115) ** 2 / 900 + (y - 85) ** 2 / 400 < 1,
        (abs(x - 40) < 14) & (abs(y - 100) < 12),
    ]
    image = np.random.default_rng(0).normal(40, 6, x.shape)
    for thing, grey in zip(things, (200, 150, 110), strict=True):
        image[thing] += grey - 40
    volume = np.stack([image.clip(0, 255), np.full_like(image, 9)], -1).astype(np.uint8).transpose(1, 0, 2)
    return Picture(volume, np.eye(4), "drawn", "auto"), things


def _predictor(method: Segmenter) -> Predictor:
    return Predictor(method.eval(), ByteBoundedStore(2**28))


class Discs(Classical):
    """Three discs around each click, soft to different degrees, with qualities of their own."""

    def candidates(
        self, embedding: Embedding, prompts: Sequence[SlicePrompt], size: tuple[int, int]
    ) -> Logits:
        y, x = (torch.arange(n)[:, None] if n == size[0] else torch.arange(n)[None] for n in size)
        masks, quality = [], []
        for prompt in prompts:
            (cx, cy) = prompt.points[0].tolist()
            draw = np.random.default_rng(round(1000 * cy + cx))
            for radius in draw.uniform(8, 30, 3):
                masks.append((radius - ((x - cx) ** 2 + (y - cy) ** 2).sqrt()) * float(draw.uniform(0.2, 3)))
                quality.append(float(draw.uniform(0.7, 1)))
        shape = (len(prompts), 3)
        return Logits(torch.stack(masks).unflatten(0, shape), torch.tensor(quality).unflatten(0, shape))


def test_sorting_is_that_of_transformers(picture: Picture) -> None:
    config = AutomaticMasksConfig(8, pred_iou=0.75, stability=0.8, overlap=0.6, batch=5)
    predictor = _predictor(Discs())
    points = point_grid(8) * np.array([WIDTH, HEIGHT], np.float32)
    clicks = [SlicePrompt(points=point[None], labels=np.ones(1, np.int64)) for point in points]
    every = predictor.segmenter.candidates(predictor.embedding(picture, [0]), clicks, (HEIGHT, WIDTH))
    assert every.quality is not None
    processor = SamImageProcessor()
    kept, scores, boxes = processor.filter_masks(
        every.masks,
        every.quality,
        (HEIGHT, WIDTH),
        [0, 0, WIDTH, HEIGHT],
        pred_iou_thresh=config.pred_iou,
        stability_score_thresh=config.stability,
        stability_score_offset=config.offset,
    )
    theirs = processor.post_process_for_mask_generation([*kept], scores, boxes, config.overlap)
    ours = automatic_masks(predictor, picture, 0, config)
    assert 5 < len(ours) == len(theirs[0]) < len(scores) < 192
    assert [m.score for m in ours] == pytest.approx([float(s) for s in theirs[1]])
    assert all((mine.mask == np.asarray(other)).all() for mine, other in zip(ours, theirs[0], strict=True))
    assert {m.point for m in ours} <= {(float(x), float(y)) for x, y in points}


def test_the_grid_lies_in_the_middles_of_cells() -> None:
    assert point_grid(2).tolist() == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]
    assert point_grid(32).shape == (1024, 2)


def test_stability_is_the_share_that_stays() -> None:
    logits = torch.full((2, 4, 5), -3.0)
    logits[0, 0] = 2.0
    logits[0, 1] = 0.5
    assert stability_score(logits, 1.0).tolist() == [0.5, 0.0]
    assert stability_score(logits, 0.25).tolist() == [1.0, 0.0]


def test_the_defaults_are_the_published_ones() -> None:
    config = PRESETS["published"]
    published = (32, 0.88, 0.95, 1.0, 0.7)
    found = (config.points_per_side, config.pred_iou, config.stability, config.offset, config.overlap)
    assert found == published
    assert config == AutomaticMasksConfig()
    assert PRESETS["relaxed"].pred_iou < PRESETS["sam2"].pred_iou < config.pred_iou
    for wrong in ({"points_per_side": 0}, {"offset": 0.0}, {"overlap": 1.5}, {"batch": 0}):
        with pytest.raises(ValueError, match="Take"):
            AutomaticMasksConfig(**wrong)  # type: ignore[arg-type]


def test_the_embedded_model_finds_what_is_drawn(drawn: tuple[Picture, list[np.ndarray]]) -> None:
    picture, things = drawn
    predictor = _predictor(Loader().get("segmed", BackboneConfig()))
    told: list[tuple[int, int]] = []
    config = replace(PRESETS["relaxed"], points_per_side=8, batch=24)
    found = automatic_masks(predictor, picture, 0, config, lambda done, total: told.append((done, total)))
    assert told == [(24, 64), (48, 64), (64, 64)]
    assert predictor.encoded == 1
    for thing in things:
        assert max(Overlap.of(one.mask, thing).dice() for one in found) > 0.85
    assert [m.score for m in found] == sorted((m.score for m in found), reverse=True)
    assert all(m.score > config.pred_iou and m.stability > config.stability for m in found)
    boxes = masks_to_boxes(torch.from_numpy(np.stack([m.mask for m in found])))
    assert (box_iou(boxes, boxes) - torch.eye(len(found))).max() <= config.overlap + 1e-6
    assert automatic_masks(predictor, picture, 1, config) == []
    assert predictor.encoded == 1


def test_looser_thresholds_propose_more(model: SamModel, picture: Picture) -> None:
    predictor = _predictor(MedSam(model))

    def propose(**options: Any) -> list[ProposedMask]:
        config = replace(PRESETS["all"], points_per_side=5, overlap=1.0, **options)
        return automatic_masks(predictor, picture, 0, config)

    everything = propose()
    scores = sorted(m.score for m in everything)
    half = propose(pred_iou=scores[len(scores) // 2])
    assert len(everything) == 75 - sum(not m.mask.any() for m in everything)
    assert 0 < len(half) < len(everything)
    assert {m.score for m in half} <= {m.score for m in everything}
    assert propose(pred_iou=max(scores)) == []


def test_a_method_that_predicts_no_iou_is_sorted_by_stability(
    drawn: tuple[Picture, list[np.ndarray]],
) -> None:
    config = AutomaticMasksConfig(4, pred_iou=2.0, stability=0.0)
    found = automatic_masks(_predictor(Classical()), drawn[0], 0, config)
    assert found
    assert (
        [m.score for m in found]
        == [m.stability for m in found]
        == sorted((m.score for m in found), reverse=True)
    )


# --- the masks of a prompt, by method ---


@torch.inference_mode()
@pytest.mark.parametrize("kind", [Sam, MedSam])
def test_three_masks_at_the_size_of_the_slice(kind: type[Sam], model: SamModel, picture: Picture) -> None:
    method = kind(model).eval()
    embedding = method.embed([picture.slice(0)])
    found = method.candidates(embedding, CLICKS, (HEIGHT, WIDTH))
    assert found.masks.shape == (2, 3, HEIGHT, WIDTH)
    assert found.quality is not None
    method.choose_best = True
    one = method.decode(embedding, [CLICKS], (HEIGHT, WIDTH))
    for n in range(2):
        assert torch.allclose(one.masks[0, n], found.masks[n, int(found.quality[n].argmax())], atol=1e-4)


@torch.inference_mode()
def test_features_that_change_nothing_change_no_candidate(model: SamModel, picture: Picture) -> None:
    methods = DecoderTuning(model).eval(), FeatUp(model).eval()
    plain, upsampled = (m.candidates(m.embed([picture.slice(0)]), CLICKS, (HEIGHT, WIDTH)) for m in methods)
    assert torch.allclose(plain.masks, upsampled.masks, atol=1e-3)
    assert plain.masks.shape[1] == 3


@torch.inference_mode()
def test_tokens_of_classes_are_no_candidates(model: SamModel, picture: Picture) -> None:
    method = LoraSam(model, LoraSamConfig(labels=("liver", "spleen"))).eval()
    embedding = method.embed([picture.slice(0)])
    found = method.candidates(embedding, CLICKS, (HEIGHT, WIDTH))
    assert found.masks.shape == (2, 1, HEIGHT, WIDTH)
    assert torch.equal(found.masks[:, 0], method.decode(embedding, [CLICKS], (HEIGHT, WIDTH)).masks[0])
