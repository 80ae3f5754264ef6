"""Slices are encoded once, volumes are filled, and strokes reach every method."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from segmed.data.phantom import make_phantom
from segmed.evaluation.metrics import Overlap
from segmed.imaging.intensity import to_uint8
from segmed.imaging.labels.masks import stack_slices
from segmed.imaging.picture import Picture
from segmed.imaging.prompts import Box, Prompt, SlicePrompt
from segmed.imaging.scribbles import Scribbles
from segmed.imaging.store import ByteBoundedStore
from segmed.imaging.volume import Volume
from segmed.inference.predictor import Masks, Predictor
from segmed.inference.refinement.refinement import Refinement
from segmed.methods.base.segmenter import Logits, StackPrompt
from segmed.methods.classical import Classical
from segmed.methods.sam.medsam import MedSam
from segmed.methods.sam.sam import Sam
from segmed.sam.embedding import Embedding
from tiny_sam import tiny_sam


class CountingMedSam(MedSam):
    """Counts the slices that pass the encoder."""

    slices = 0

    def encode(self, images: torch.Tensor) -> Embedding:
        self.slices += len(images)
        return super().encode(images)


class Recording(Classical):
    """Keeps the prompts it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[SlicePrompt] = []

    def decode(
        self, embedding: Embedding, prompts: Sequence[Sequence[SlicePrompt]] | None, size: tuple[int, int]
    ) -> Logits:
        assert prompts is not None
        self.seen += [p for row in prompts for p in row]
        return super().decode(embedding, prompts, size)


@pytest.fixture(scope="module")
def scan() -> tuple[Picture, np.ndarray]:
    """A CT phantom and its labels."""
    phantom = make_phantom("CT", seed=3)
    volume = Volume(phantom.image, phantom.affine, "CT")
    return Picture(to_uint8(volume), phantom.affine, "scan", "ct-soft-tissue"), phantom.labels


def _box(mask: np.ndarray) -> Box:
    ranges = [np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    (i0, i1), (j0, j1), (k0, k1) = ((int(r[0]), int(r[-1])) for r in ranges)
    return Box((i0, i1), (j0, j1), (k0, k1))


def _store() -> ByteBoundedStore[Embedding]:
    return ByteBoundedStore(2**28)


def _overlap(masks: Masks, truth: np.ndarray) -> Overlap:
    return Overlap.of(stack_slices(masks, (truth.shape[0], truth.shape[1], truth.shape[2])), truth)


def test_the_encoder_runs_once_per_slice(scan: tuple[Picture, np.ndarray]) -> None:
    picture, _ = scan
    method = CountingMedSam(tiny_sam())
    predictor = Predictor(method, _store(), batch=3)
    box = Box((40, 90), (40, 100), (20, 27))
    predictor.segment_slices(picture, Prompt(box, ((60, 60, 24),)))
    assert method.slices == 1
    predictor.segment_slices(picture, Prompt(box, ((60, 61, 24),), ((10, 10, 24),)))
    assert method.slices == 1
    predictor.segment_volume(picture, Prompt(box))
    assert method.slices == 8
    predictor.segment_volume(picture, Prompt(box))
    assert method.slices == predictor.encoded == 8


def test_parallel_users_of_one_slice_share_its_encoding(scan: tuple[Picture, np.ndarray]) -> None:
    picture, _ = scan
    method = CountingMedSam(tiny_sam())
    predictor = Predictor(method, _store())
    prompt = Prompt(Box((40, 90), (40, 100), (20, 20)))
    results: list[Masks] = []
    threads = [
        threading.Thread(target=lambda: results.append(predictor.segment_slices(picture, prompt)))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert method.slices == 1
    assert len(results) == 6
    assert all((r[20] == results[0][20]).all() for r in results)


def test_models_windows_and_images_do_not_share_embeddings(scan: tuple[Picture, np.ndarray]) -> None:
    picture, _ = scan
    store = _store()
    model = tiny_sam()
    prompt = Prompt(Box((40, 90), (40, 100), (20, 20)))
    other = Picture(picture.array, picture.affine, "scan:ct-lung", "ct-lung")
    for segmenter in (Sam(model, "sam-a"), MedSam(model, "medsam-a"), MedSam(model, "medsam-b")):
        for shown in (picture, other):
            Predictor(segmenter, store).segment_slices(shown, prompt)
    assert len(store) == 6


def test_a_bounded_cache_drops_old_slices(scan: tuple[Picture, np.ndarray]) -> None:
    picture, _ = scan
    method = CountingMedSam(tiny_sam())
    one = 64 * 16 * 16 * 4
    predictor = Predictor(method, ByteBoundedStore(3 * one))
    predictor.segment_volume(picture, Prompt(Box((40, 90), (40, 100), (10, 15))))
    assert predictor.embeddings.nbytes <= 3 * one
    assert len(predictor.embeddings) == 3


def test_batches_give_what_single_slices_give(scan: tuple[Picture, np.ndarray]) -> None:
    picture, _ = scan
    prompt = Prompt(Box((40, 90), (40, 100), (10, 16)))
    single = Predictor(MedSam(tiny_sam()), _store(), batch=1).segment_volume(picture, prompt)
    batched = Predictor(MedSam(tiny_sam()), _store(), batch=4).segment_volume(picture, prompt)
    assert all(Overlap.of(single[k], batched[k]).dice("one") > 0.999 for k in range(10, 17))


def test_plain_fills_the_prompted_slices_only(scan: tuple[Picture, np.ndarray]) -> None:
    picture, labels = scan
    predictor = Predictor(Classical(), _store())
    liver = _box(labels == 1)
    masks = predictor.segment_slices(picture, Prompt(liver))
    assert [*masks] == [liver.middle_slice]
    stacked = stack_slices(masks, picture.shape)
    assert stacked.shape == picture.shape
    assert stacked.dtype == np.uint8
    assert (stacked[:, :, liver.middle_slice] == masks[liver.middle_slice].T).all()
    clicks = Prompt(foreground=((62, 70, 28), (62, 70, 31)))
    assert [*predictor.segment_slices(picture, clicks)] == [28, 31]


def test_thick_box_prompts_every_slice_and_does_not_propagate(scan: tuple[Picture, np.ndarray]) -> None:
    picture, labels = scan
    method = Recording()
    truth = labels == 2
    box = _box(truth)
    masks = Predictor(method, _store()).segment_volume(picture, Prompt(box))
    assert len(method.seen) == box.k[1] - box.k[0] + 1
    assert all(p.box == (box.i[0], box.j[0], box.i[1], box.j[1]) for p in method.seen)
    assert [*masks] == [*range(box.k[0], box.k[1] + 1)]


@pytest.mark.parametrize("value", [2, 3, 4])
def test_flat_box_or_click_fills_the_organ(scan: tuple[Picture, np.ndarray], value: int) -> None:
    picture, labels = scan
    truth = labels == value
    k = int(truth.sum(axis=(0, 1)).argmax())
    there = _box(truth[:, :, k : k + 1])
    predictor = Predictor(Classical(), _store())
    flat = Box(there.i, there.j, (k, k))
    from_box = _overlap(predictor.segment_volume(picture, Prompt(flat)), truth)
    i, j = (int(v) for v in np.argwhere(truth[:, :, k]).mean(axis=0))
    from_click = _overlap(predictor.segment_volume(picture, Prompt(foreground=((i, j, k),))), truth)
    assert from_box.dice() > 0.85
    assert from_click.dice() > 0.8


def test_background_clicks_reach_propagated_slices(scan: tuple[Picture, np.ndarray]) -> None:
    picture, labels = scan
    truth = labels == 2
    k = int(truth.sum(axis=(0, 1)).argmax())
    flat = _box(truth[:, :, k : k + 1])
    method = Recording()
    away = (int(flat.i[0]), int(flat.j[0]), k + 1)
    prompt = Prompt(Box(flat.i, flat.j, (k, k)), background=(away,))
    masks = Predictor(method, _store()).segment_volume(picture, prompt)
    assert not masks[k + 1][away[1], away[0]]
    assert any(len(p.background) for p in method.seen)


@pytest.mark.parametrize("refine", [None, lambda rough: rough.probability > 0.5])
def test_progress_reaches_its_total_and_tells_the_masks(
    scan: tuple[Picture, np.ndarray], refine: Refinement | None
) -> None:
    picture, _ = scan
    told: list[tuple[int, int]] = []
    masks: dict[int, np.ndarray] = {}

    def progress(done: int, most: int, found: Mapping[int, np.ndarray]) -> None:
        told.append((done, most))
        masks.update(found)

    prompt = Prompt(Box((40, 90), (40, 100), (10, 15)))
    result = Predictor(Classical(), _store()).segment_volume(picture, prompt, progress, refine)
    assert told == [(n, 6) for n in (0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6)]
    assert masks.keys() == result.keys()
    assert all((masks[k] == result[k]).all() for k in result)


class Enough(Exception):
    """Stops a prediction."""


@pytest.mark.parametrize("box", [Box((40, 90), (40, 100), (12, 12)), Box((40, 90), (40, 100), (10, 15))])
def test_a_prediction_stops_before_the_next_slice(scan: tuple[Picture, np.ndarray], box: Box) -> None:
    picture, _ = scan
    masks: dict[int, np.ndarray] = {}

    def progress(done: int, most: int, found: Mapping[int, np.ndarray]) -> None:
        masks.update(found)
        if len(masks) == 3:
            raise Enough

    predictor = Predictor(Classical(), _store())
    with pytest.raises(Enough):
        predictor.segment_volume(picture, Prompt(box), progress)
    assert len(masks) == predictor.encoded == 3


class Scribbled(Recording):
    """Says that it reads scribbles."""

    takes_scribbles = True


def _stroke(mask: np.ndarray, k: int) -> np.ndarray:
    """(H, W) int8 with a line through the middle of slice k of a mask, and one along the left side of the
    slice."""
    out = np.zeros(mask.shape[1::-1], np.int8)
    row = int(np.argwhere(mask[:, :, k].T)[:, 0].mean())
    out[row] = mask[:, row, k]
    out[:, 1] = -1
    return out


@pytest.mark.parametrize("volume", [False, True])
def test_strokes_are_clicks_for_methods_that_do_not_take_them(
    scan: tuple[Picture, np.ndarray], volume: bool
) -> None:
    picture, labels = scan
    truth = labels == 2
    k = int(truth.sum(axis=(0, 1)).argmax())
    drawn = Scribbles.from_maps({k: _stroke(truth, k), k + 1: np.minimum(_stroke(truth, k), 0)})
    into, beside = drawn.clicks()
    results = []
    for prompt in (Prompt(scribbles=drawn.maps()), Prompt(foreground=tuple(into), background=tuple(beside))):
        method = Recording()
        predictor = Predictor(method, _store())
        found = (predictor.segment_volume if volume else predictor.segment_slices)(picture, prompt)
        assert all(p.scribbles is None for p in method.seen)
        results.append((found, method.seen))
    (drawn_masks, drawn_seen), (clicked_masks, clicked_seen) = results
    assert drawn_masks.keys() == clicked_masks.keys() and drawn_masks[k].any()
    assert all((drawn_masks[n] == clicked_masks[n]).all() for n in drawn_masks)
    assert [p.points.tolist() for p in drawn_seen] == [p.points.tolist() for p in clicked_seen]


def test_methods_that_take_scribbles_get_them_on_propagated_slices_too(
    scan: tuple[Picture, np.ndarray],
) -> None:
    picture, labels = scan
    truth = labels == 2
    k = int(truth.sum(axis=(0, 1)).argmax())
    beside = np.minimum(_stroke(truth, k), 0)
    method = Scribbled()
    box = _box(truth[:, :, k : k + 1])
    prompt = Prompt(Box(box.i, box.j, (k, k)), scribbles={k: _stroke(truth, k), k + 1: beside})
    Predictor(method, _store()).segment_volume(picture, prompt)
    assert method.seen[0].scribbles is prompt.scribbles[k] and not len(method.seen[0].points)
    assert [p.scribbles is beside for p in method.seen].count(True) == 1
    assert sum(p.scribbles is not None for p in method.seen) == 2


def test_a_memory_is_told_of_strokes_beside_the_object() -> None:
    strokes = np.zeros((20, 30), np.int8)
    strokes[4, 3:12] = -1
    stack = StackPrompt.of(
        Prompt(Box((2, 9), (2, 9), (1, 1)), background=((1, 1, 3),), scribbles={3: strokes})
    )
    assert [*stack.shown] == [1]
    away = [tuple(p) for p in stack.excluded[3]]
    assert away[0] == (1, 1) and len(away) > 2
    assert all(strokes[int(y), int(x)] == -1 for x, y in away[1:])
