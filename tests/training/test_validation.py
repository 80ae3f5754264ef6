"""Validation: case by case, the same each time, and shared by processes and caches without a change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from segmed.data.slices import SliceDataset
from segmed.evaluation.case_scores import CaseScore, case_scores, mean_dice
from segmed.evaluation.metrics import Overlap
from segmed.evaluation.segmentation_scores import ImageScore, score_mask
from segmed.imaging.prompts import SlicePrompt
from segmed.methods.base.segmenter import Logits
from segmed.methods.lora import LoraSam, LoraSamConfig
from segmed.sam.embedding import Embedding
from segmed.training.embeddings import FrozenEncoder
from segmed.training.overlay import overlay_sheet
from segmed.training.validation import ShownCase, validate
from small_training import SmallTuning, small_sam, tuned


def _image(tp: int, fp: int, fn: int, hd95: float, case: str = "a", label: int = 1) -> ImageScore:
    nsd = math.nan if math.isnan(hd95) else 0.9 - hd95 / 10 if math.isfinite(hd95) else 0.0
    return ImageScore(Overlap(tp, fp, fn, 100), hd95, case, label, nsd)


def test_images_make_a_case() -> None:
    scores = [_image(10, 0, 0, 0.0), _image(0, 5, 0, math.inf), _image(5, 0, 5, 4.0)]
    scores += [_image(0, 0, 7, math.inf, "b"), _image(0, 0, 0, math.nan, "c"), _image(4, 0, 0, 0.0, "a", 2)]
    rows = case_scores(scores, {1: "liver", 2: "spleen"})
    assert rows == [
        CaseScore("a", "liver", 30 / 40, 2.0, nsd=pytest.approx((0.9 + 0 + 0.5) / 3)),
        CaseScore("a", "spleen", 1.0, 0.0, nsd=0.9),
        CaseScore("b", "liver", 0.0, math.inf, nsd=0.0),
        CaseScore("c", "liver", 1.0, 0.0, present=False, nsd=1.0),
    ]
    assert mean_dice(rows) == pytest.approx(((0.75 + 0) / 2 + 1) / 2)  # c has no liver
    assert mean_dice(rows[3:]) == 1
    assert math.isnan(mean_dice([]))


class Boxes(SmallTuning):
    """Fills its box; keeps what it was asked."""

    def decode(
        self, embedding: Embedding, prompts: Sequence[Sequence[SlicePrompt]] | None, size: tuple[int, int]
    ) -> Logits:
        masks = torch.full((len(embedding), 1, *size), -1.0)
        assert prompts is not None and embedding.frame.height == size[0]
        for mask, (prompt,) in zip(masks, prompts, strict=True):
            assert prompt.box is not None
            x0, y0, x1, y1 = (int(v) for v in prompt.box)
            mask[0, y0 : y1 + 1, x0 : x1 + 1] = 1
        return Logits(masks)


def test_boxes_are_tight_and_scores_those_of_the_cases(held_out: SliceDataset) -> None:
    method = Boxes(small_sam())
    found = validate(method, held_out, prompted=True, batch=3)
    assert [(s.case, s.label) for s in found.scores] == [
        (c, n) for c in held_out.patients for n in ("bright", "dark")
    ]
    for row in found.scores:
        label = {name: value for value, name in held_out.classes.items()}[row.label]
        whole = Overlap(0, 0, 0, 0)
        boxes, truths = [], []
        for sample in map(held_out.of([row.case]).__getitem__, range(4)):
            truth = sample.labels == label
            if truth.any():
                y, x = np.nonzero(truth)
                box = np.zeros_like(truth)
                box[y.min() : y.max() + 1, x.min() : x.max() + 1] = True
                whole += Overlap.of(box, truth)
                boxes.append(box)
                truths.append(truth)
        assert row.dice == pytest.approx(whole.dice())
        volume = score_mask(np.stack(boxes), np.stack(truths))
        assert (row.hd95, row.nsd) == pytest.approx((volume.hd95, volume.nsd))
    assert [s.case for s in found.shown] == held_out.patients
    assert all(s.image.base is None and s.truth.base is None for s in found.shown)  # none holds its volume
    assert all((s.found[s.truth > 0] == s.truth[s.truth > 0]).all() for s in found.shown)


def test_classes_are_scored_on_every_slice(held_out: SliceDataset) -> None:
    method = LoraSam(small_sam(), LoraSamConfig(("dark", "bright")))
    found = validate(method, held_out, prompted=False, batch=4)
    again = validate(method, held_out, prompted=False, batch=1)
    for row, other in zip(found.scores, again.scores, strict=True):
        assert replace(row, hd95=0) == replace(other, hd95=0)
    sample = held_out[1]
    with torch.no_grad():
        masks = method.decode(
            method.embed([sample.image]), None, (sample.labels.shape[0], sample.labels.shape[1])
        ).masks
    classes = masks.argmax(1)[0].numpy()
    one = validate(method, held_out._part([held_out.slices[1]]), prompted=False).scores
    wanted = [
        Overlap.of(classes == place, sample.labels == label).dice("one") for label, place in ((1, 2), (2, 1))
    ]
    assert [s.dice for s in one] == pytest.approx(wanted)


def test_embeddings_on_disk_change_nothing(held_out: SliceDataset, tmp_path: Path) -> None:
    method = tuned().eval()
    plain = validate(method, held_out, prompted=True)
    first = method.prepare(held_out[0].image)[0]
    method.prepare_training()
    encoder = FrozenEncoder(method, first, tmp_path / "v.bin", len(held_out), 10**7)
    for _ in range(2):
        kept = validate(method, held_out, prompted=True, encoder=encoder)
        assert [s.dice for s in kept.scores] == pytest.approx([s.dice for s in plain.scores], abs=0.02)
        assert encoder.encoded == len(held_out)


def test_the_sheet_shows_truth_and_result() -> None:
    truth, found = np.zeros((2, 64, 128), np.uint8)
    truth[10:30, 10:30], found[10:30, 80:100] = 1, 2
    case = ShownCase("a", np.full((64, 128), 90, np.uint8), truth, found)
    sheet = overlay_sheet([case] * 5)
    assert sheet.shape == (512, 1024, 3)
    green = np.argwhere((sheet[:256, :256] == (0, 220, 0)).all(-1))
    red = np.argwhere((sheet[:256, :256] == (255, 40, 40)).all(-1))
    assert (green.min(0).tolist(), green.max(0).tolist()) == ([20, 20], [59, 59])
    assert (red.min(0).tolist(), red.max(0).tolist()) == ([20, 160], [59, 199])
    assert not sheet[256:, 256:].any()
